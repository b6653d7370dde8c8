"""Scenario files: what they can say, and what is said of a wrong one."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from logstore.errors import InvalidInputError
from logstore.replication.scenario import (
    FAULTS,
    Fault,
    RandomFaults,
    Scenario,
    built_in_scenarios,
    load_scenario,
    parse_scenario,
)
from logstore.replication.settings import ClusterSettings, LinkSettings, region_of

EVERYTHING = """
description = "a bit of all"
source = "our own"
duration_ms = 9000

[cluster]
brokers = 4
racks = ["eu/a", "us/a"]
replication_factor = 3
acks = 1
unclean_election = true

[workload]
producers = 3

[queues]
queues = 1

[network]
loss_ppm = 100

[[network.links]]
source = "eu/a"
target = "us/a"
latency_us = 90_000

[disk]
sync_us = 5000

[[faults]]
kind = "crash"
at_ms = 1000
within_ms = 500
for_ms = 2000
brokers = [1, 3]

[[faults]]
kind = "partition"
racks = ["us/a"]
apart_from = ["brokers"]
direction = "to"

[random_faults]
shortest_ms = 10
per_minute = { crash = 3, bit_rot = 1 }

[expect]
lost = "some"
violations = ["lost"]
"""


def parsed(text: str) -> Scenario:
    return parse_scenario(text.encode(), "some.toml", name="some")


def test_a_scenario_says_all_that_a_run_depends_on() -> None:
    scenario = parsed(EVERYTHING)
    assert (scenario.name, scenario.description) == ("some", "a bit of all")
    assert scenario.duration_ms == 9000
    assert scenario.cluster.racks == ("eu/a", "us/a")
    assert scenario.cluster.acks == 1
    assert scenario.network.links == (
        LinkSettings(source="eu/a", target="us/a", latency_us=90_000),
    )
    first, second = scenario.faults
    assert first == Fault(kind="crash", at_ms=1000, within_ms=500, for_ms=2000, brokers=(1, 3))
    assert (second.racks, second.apart_from, second.direction) == (("us/a",), ("brokers",), "to")
    assert scenario.random_faults.per_minute == {"crash": 3, "bit_rot": 1}
    assert scenario.expect.violations == ("lost",)


def test_a_scenario_goes_to_another_process() -> None:
    scenario = parsed(EVERYTHING)
    assert pickle.loads(pickle.dumps(scenario)) == scenario


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("duration_ms = ", "some.toml: no TOML: "),
        ("durations_ms = 5", "some.toml: no key or table called 'durations_ms'; there are desc"),
        ("duration_ms = 0", "some.toml: duration_ms=0 is out of bounds: a whole number, 1 to"),
        ("duration_ms = 1.5", "some.toml: duration_ms=1.5 is out of bounds: a whole number"),
        ('name = "x"', "some.toml: no key or table called 'name'"),
        ("cluster = 5", "some.toml: [cluster] is to be a table, not 5"),
        ("[clusters]", "some.toml: no key or table called 'clusters'"),
        ("[cluster]\nbroker = 5", "some.toml: [cluster] a cluster has no option called 'broker'"),
        ("[cluster]\nbrokers = true", "some.toml: [cluster] brokers=True is out of bounds: a who"),
        ("[cluster]\nacks = 2", "some.toml: [cluster] acks=2 is none of 0, 1, 'all'"),
        ('[cluster]\nracks = "a"', "some.toml: [cluster] racks='a' is no list"),
        ("[cluster]\nracks = []", "some.toml: [cluster] racks is a list of at least 1, not of 0"),
        ('[cluster]\nracks = ["a", ""]', "some.toml: [cluster] racks[1]='' is no name: some text"),
        (
            "[cluster]\nreplication_factor = 4",
            "some.toml: [cluster] replication_factor=4 needs as many brokers; there are brokers=3",
        ),
        (
            "[cluster]\nmin_insync_replicas = 4",
            "some.toml: [cluster] min_insync_replicas=4 can never be met with replication_factor=3",
        ),
        ("[cluster]\nheartbeat_interval_ms = 9000", "is to be less than session_timeout_ms=9000"),
        ("[workload]\nproducers = -1", "some.toml: [workload] producers=-1 is out of bounds"),
        ("[workload]\ndelivery_timeout_ms = 9", "some.toml: [workload] delivery_timeout_ms=9 is"),
        ("[network]\nloss_ppm = 2000000", "some.toml: [network] loss_ppm=2000000 is out of bou"),
        ("[network]\nlinks = 3", "some.toml: [[network.links]] is to be a list of tables, not 3"),
        ("[[network.links]]\nfrom = 3", "[network.links 1] a link has no option called 'from'"),
        ("[[network.links]]\nsource = -3", "source=-3 is neither a broker's number nor a name"),
        ("faults = 3", "some.toml: [[faults]] is to be a list of tables, not 3"),
        ("[[faults]]\n[[faults]]", "some.toml: [faults 1] kind='' is none of 'crash', 'power_cut'"),
        ('[[faults]]\nkind = "crash"\nbrokers = "some"', "brokers='some' is none of 'any'"),
        ('[[faults]]\nkind = "crash"\nbrokers = [0]\nracks = ["a"]', "exclude each other"),
        ('[[faults]]\nkind = "crash"\nbrokers = [3]', "names broker 3; there are 0 to 2"),
        ('[[faults]]\nkind = "crash"\nracks = ["z"]', "names rack 'z'; there are a, b, c"),
        (
            '[[faults]]\nkind = "crash"\nat_ms = 30000',
            "would come after the end: duration_ms=30000",
        ),
        ("[random_faults]\nper_minute = 3", "per_minute=3 is no table of kinds and whole numbers"),
        (
            "[random_faults.per_minute]\nflood = 3",
            "a kind in per_minute='flood' is none of 'crash'",
        ),
        ("[random_faults.per_minute]\ncrash = -3", "per_minute.crash=-3 is out of bounds"),
        ("[random_faults]\nshortest_ms = 6000", "shortest_ms=6000 is more than longest_ms=5000"),
        ('[expect]\nlost = "few"', "some.toml: [expect] lost='few' is none of 'none', 'some', 'a"),
    ],
)
def test_what_is_wrong_is_said_with_file_table_and_key(text: str, problem: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parsed(text)
    assert problem in str(caught.value)
    assert str(caught.value).startswith("some.toml: ")


def test_bytes_that_are_no_text_are_no_scenario() -> None:
    with pytest.raises(InvalidInputError, match=r"some\.toml: no TOML"):
        parse_scenario(b"\xff", "some.toml", name="some")


def test_a_broker_that_is_added_can_be_named_after_it() -> None:
    lines = '[[faults]]\nkind = "{}"\nat_ms = {}\n{}\n'
    text = lines.format("add_broker", 1, "") + lines.format("crash", 2, "brokers = [3]")
    assert parsed(text).faults[1].brokers == (3,)


def test_a_file_is_loaded_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "my-own.toml"
    path.write_text("duration_ms = 7", encoding="utf-8")
    assert load_scenario(path) == Scenario("my-own", duration_ms=7)
    with pytest.raises(FileNotFoundError):
        load_scenario(tmp_path / "nothing.toml")


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    with pytest.raises(
        InvalidInputError, match=r"no scenario called 'defautl'; there are .*default"
    ):
        load_scenario("defautl")


@pytest.mark.parametrize("name", built_in_scenarios())
def test_every_built_in_scenario_can_be_loaded_and_describes_itself(name: str) -> None:
    scenario = load_scenario(name)
    assert scenario.name == name
    assert scenario.description.strip()


def test_options_are_replaced_by_their_names() -> None:
    scenario = load_scenario("default").replace(
        {
            "cluster.replication_factor": 5,
            "cluster.acks": 1,
            "disk.sync_us": 7,
            "duration_ms": 60_001,
        }
    )
    assert (scenario.cluster.replication_factor, scenario.cluster.acks) == (5, 1)
    assert scenario.cluster.brokers == load_scenario("default").cluster.brokers
    assert scenario.disk.sync_us == 7
    assert scenario.duration_ms == 60_001


def test_links_stay_when_another_option_is_replaced() -> None:
    scenario = parsed(EVERYTHING)
    assert scenario.replace({"network.loss_ppm": 5}).network.links == scenario.network.links


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"acks": 1}, "no option called 'acks'; there are name, description"),
        ({"clusters.acks": 1}, "no option called 'clusters.acks'"),
        ({"cluster.ack": 1}, "[cluster] a cluster has no option called 'ack'"),
        ({"cluster.brokers": 1}, "[cluster] replication_factor=3 needs as many brokers"),
        ({"duration_ms": 0}, "duration_ms=0 is out of bounds"),
    ],
)
def test_a_wrong_replacement_is_refused(changes: dict[str, object], problem: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        load_scenario("default").replace(changes)
    assert problem in str(caught.value)


def test_racks_are_given_in_turn_and_have_regions() -> None:
    cluster = ClusterSettings(brokers=3, racks=("eu/a", "us/a"))
    assert [cluster.rack_of(broker) for broker in range(4)] == ["eu/a", "us/a", "eu/a", "us/a"]
    assert [region_of(rack) for rack in ("eu/a", "us/b", "a")] == ["eu", "us", ""]


def test_every_kind_of_fault_can_be_random() -> None:
    assert RandomFaults(per_minute=dict.fromkeys(FAULTS, 1)).per_minute
