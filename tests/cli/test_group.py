"""``logstore group``: listing, describing, resetting and deleting."""

from __future__ import annotations

from pathlib import Path

import pytest

import logstore
from logstore import Record
from logstore.partitions import OffsetAndMetadata, TopicPartition

from .program import json_lines, only_line, run


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Ten records in each of two partitions, of which ``billing`` has read four and none."""
    path = tmp_path / "store"
    with logstore.open(path) as store:
        topic = store.create_topic("orders", partitions=2)
        for number in range(2):
            log = topic.partition(number)
            log.append([Record(timestamp=1000 + n, value=b"%d" % n) for n in range(10)])
        place = TopicPartition("orders", 0)
        store.groups.commit("billing", {place: OffsetAndMetadata(4, "note")})
    return path


def offsets(path: Path) -> list[int | None]:
    with logstore.open(path, read_only=True) as store:
        found = store.groups.committed("billing", [TopicPartition("orders", n) for n in (0, 1)])
    return [None if value is None else value.offset for value in found.values()]


def test_groups_are_listed(store: Path) -> None:
    assert run("group list", store=store).stdout.splitlines() == [
        "GROUP    STATE  MEMBERS",
        "billing  Empty        0",
    ]
    assert json_lines(run("group list --json", store=store)) == [
        {"type": "group", "group": "billing", "state": "Empty", "members": 0}
    ]


def test_a_store_without_groups_lists_none(tmp_path: Path) -> None:
    logstore.open(tmp_path).close()
    assert only_line(run("group list", store=tmp_path).stdout) == "GROUP  STATE  MEMBERS"
    assert run("group list --json", store=tmp_path).stdout == ""


def test_a_group_is_described(store: Path) -> None:
    assert run("group describe billing", store=store).stdout.splitlines() == [
        "group billing: Empty, generation 0",
        "TOPIC   PARTITION  COMMITTED  LOG END  LAG  MEMBER",
        "orders          0          4       10    6  -",
    ]
    (fields,) = json_lines(run("group describe billing --json", store=store))
    assert fields["offsets"] == [
        {
            "topic": "orders",
            "partition": 0,
            "offset": 4,
            "metadata": "note",
            "log_start_offset": 0,
            "log_end_offset": 10,
            "lag": 6,
            "member_id": None,
        }
    ]
    assert (fields["state"], fields["assignor"], fields["members"]) == ("Empty", None, [])


def test_a_group_with_members_is_described_and_refused_to_be_changed(store: Path) -> None:
    with logstore.open(store) as opened:
        member = opened.groups.join("billing", topics=lambda: ["orders"], group_instance_id="one")
        assert member.poll()
        lines = run("group describe billing", store=store).stdout.splitlines()
        assert lines[0] == "group billing: Stable, generation 1, assignor range, 1 member"
        assert [line.split() for line in lines[1:]] == [
            ["TOPIC", "PARTITION", "COMMITTED", "LOG", "END", "LAG", "MEMBER"],
            ["orders", "0", "4", "10", "6", member.member_id],
            ["orders", "1", "-", "10", "-", member.member_id],
            ["MEMBER", "INSTANCE", "GENERATION", "PARTITIONS"],
            [member.member_id, "one", "1", "orders:0,1"],
        ]
        (fields,) = json_lines(run("group describe billing --json", store=store))
        assert fields["members"][0]["assignment"] == [
            {"topic": "orders", "partition": 0},
            {"topic": "orders", "partition": 1},
        ]
        for words in ("group reset-offsets billing --to-earliest", "group delete billing --yes"):
            assert "has members" in only_line(run(words, store=store, code=1).stderr)
        member.leave()


def test_an_unknown_group_is_an_error(store: Path) -> None:
    for words in (
        "group describe none",
        "group delete none --yes",
        "group delete billing none --yes",
        "group reset-offsets none --to-earliest",
        "group reset-offsets none --to-earliest --dry-run",
    ):
        complaint = only_line(run(words, store=store, code=1).stderr)
        assert "there is no group called 'none'" in complaint
    assert offsets(store) == [4, None]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--to-earliest", [0, None]),
        ("--to-latest", [10, None]),
        ("--to-offset 7", [7, None]),
        ("--to-offset 70 --topic orders", [10, 10]),
        ("--to-datetime 1003 --topic orders:1", [4, 3]),
        ("--to-datetime 1970-01-01T00:00:01.005Z", [5, None]),
        ("--shift-by -1", [3, None]),
        ("--shift-by 2 --topic orders:0,1", [6, 2]),
    ],
)
def test_offsets_are_reset_after_a_dry_run(
    store: Path, options: str, expected: list[int | None]
) -> None:
    words = f"group reset-offsets billing {options}"
    planned = json_lines(run(f"{words} --dry-run --json", store=store))
    assert offsets(store) == [4, None]
    done = json_lines(run(f"{words} --json", store=store))
    assert offsets(store) == expected
    assert [{**fields, "dry_run": True} for fields in done] == planned
    assert all(fields["after"] == expected[fields["partition"]] for fields in done)


def test_a_reset_is_shown_with_before_and_after(store: Path) -> None:
    words = "group reset-offsets billing --to-latest --topic orders"
    assert run(f"{words} --dry-run", store=store).stdout.splitlines() == [
        "group billing: would move 2 partitions",
        "TOPIC   PARTITION  BEFORE  AFTER",
        "orders          0  4          10",
        "orders          1  -          10",
    ]
    assert run(words, store=store).stdout.startswith("group billing: moved 2 partitions\n")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("", "say where to"),
        ("--to-earliest --to-latest", "say where to"),
        ("--to-datetime never", "is no time"),
        ("--to-latest --topic orders:x", "not of the form"),
        ("--to-offset -1", "-1"),
        ("--to-latest --topic __metadata", "the store's own topic"),
        ("--to-latest --topic __metadata:0 --dry-run", "the store's own topic"),
    ],
)
def test_a_reset_that_makes_no_sense_is_wrong_use(store: Path, options: str, said: str) -> None:
    result = run(f"group reset-offsets billing {options}", store=store, code=2)
    assert said in only_line(result.stderr)


def test_a_reset_of_what_is_not_there_fails(store: Path) -> None:
    for topic in ("none", "orders:7"):
        words = f"group reset-offsets billing --to-latest --topic {topic}"
        assert run(words, store=store, code=1).stderr
    assert offsets(store) == [4, None]


def test_a_group_is_deleted_with_what_it_has_committed(store: Path) -> None:
    assert only_line(run("group delete billing", store=store, stdin="").stdout) == (
        "deleted group billing"
    )
    assert offsets(store) == [None, None]
    assert run("group list --json", store=store).stdout == ""


def test_a_deletion_is_told_in_json(store: Path) -> None:
    assert json_lines(run("group delete billing billing --yes --json", store=store)) == [
        {"type": "group-deleted", "group": "billing"}
    ]


def test_without_a_command_the_help_is_shown() -> None:
    assert "reset-offsets" in run("group", code=2).stderr
