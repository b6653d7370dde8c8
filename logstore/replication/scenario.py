"""Scenarios: a cluster, a workload, and what goes wrong, in a TOML file.

A scenario that comes with logstore is loaded by its name, any other by its path. What is wrong in
one is said with the file, the table and the key.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, Self

from logstore.errors import InvalidInputError
from logstore.options import Check, Options, integer, one_of, option, text
from logstore.replication.settings import (
    PPM,
    ClusterSettings,
    DiskSettings,
    LinkSettings,
    NetworkSettings,
    QueueSettings,
    WorkloadSettings,
    label,
    several,
)

__all__ = [
    "CLUSTER_WIDE",
    "FAULTS",
    "SIDES",
    "Expectation",
    "Fault",
    "RandomFaults",
    "Scenario",
    "built_in_scenarios",
    "load_scenario",
    "parse_scenario",
]

FAULTS = {
    "crash": "the broker's process is killed, and starts again; the system keeps what it wrote",
    "power_cut": "the machine is off, and what was not synced is lost, torn or out of order",
    "restart": "the broker is stopped in good order, and starts again",
    "pause": "the broker stands still, as in a long garbage collection, and knows nothing of it",
    "lose_disk": "the broker dies and starts again with an empty disk",
    "partition": "messages between the brokers and others are lost",
    "flaky_network": "some messages are lost, come twice, or are overtaken",
    "slow_network": "messages from and to the brokers take longer",
    "slow_disk": "syncs take longer",
    "full_disk": "nothing more can be written to the disk",
    "bit_rot": "a byte of the log is not what was written any more",
    "add_broker": "another broker joins, and replicas are moved to it",
}
"""The kinds of faults, and what each does. (The last one is none, but happens in the same way.)"""

CLUSTER_WIDE = ("flaky_network", "add_broker")
"""Kinds that befall no single brokers."""

SIDES = ("brokers", "controller", "clients")
"""From whom brokers can be apart."""

_number = integer(0)


def _brokers(key: str, value: Any) -> str | None:
    if isinstance(value, str):
        return one_of("any", "leader", "follower", "all")(key, value)
    return several(_number, at_least=1)(key, value)


@dataclass(frozen=True, slots=True)
class Fault(Options):
    """Something that goes wrong at a time, and for a time."""

    owner: ClassVar[str] = "a fault"

    kind: str = option("", one_of(*FAULTS))
    at_ms: int = option(0, integer(0))
    within_ms: int = option(0, integer(0))
    """It begins up to so much later, as the seed decides."""
    for_ms: int = option(0, integer(0))
    """How long it lasts; 0: until the end of the run, where everything heals."""
    brokers: tuple[int, ...] | str = option("any", _brokers)
    """Their numbers; or ``any`` (as the seed decides), ``leader`` (of the first partition, as the
    fault begins), ``follower`` (one of its other replicas), ``all``."""
    count: int = option(1, integer(1))
    """How many of ``any`` or ``follower``; of ``add_broker``, how many are added."""
    racks: tuple[str, ...] = option((), several(label))
    """All brokers of these racks instead."""
    apart_from: tuple[str, ...] = option(SIDES, several(one_of(*SIDES), at_least=1))
    """Of a partition: from whom the brokers are cut off. Less than all of them is a partial one."""
    direction: str = option("both", one_of("both", "from", "to"))
    """Of a partition: whether messages are lost both ways, only those from the brokers, or only
    those to them."""
    factor: int = option(10, integer(2))
    """Of a slow disk or network: how many times longer it takes."""
    loss_ppm: int = option(20_000, PPM)
    duplicate_ppm: int = option(20_000, PPM)
    reorder_ppm: int = option(50_000, PPM)

    def check(self) -> None:
        """A fault has a kind, and brokers or racks, not both."""
        if self.racks and self.brokers != "any":
            raise InvalidInputError("brokers and racks exclude each other: give one of them")


def _rates(key: str, value: Any) -> str | None:
    if not isinstance(value, Mapping):
        return f"{key}={value!r} is no table of kinds and whole numbers"
    for kind, rate in value.items():
        problem = one_of(*FAULTS)(f"a kind in {key}", kind) or integer(0)(f"{key}.{kind}", rate)
        if problem:
            return problem
    return None


@dataclass(frozen=True, slots=True)
class RandomFaults(Options):
    """Faults at times and places that the seed decides."""

    owner: ClassVar[str] = "random_faults"

    per_minute: Mapping[str, int] = dataclasses.field(
        default_factory=dict, metadata={"check": _rates}
    )
    """How many of each kind."""
    shortest_ms: int = option(200, integer(1))
    longest_ms: int = option(5000, integer(1))
    """How long each lasts."""
    brokers_at_once: int = option(1, integer(1))
    """How many brokers are down, apart or out of order at the same time, at most."""
    rest_ms: int = option(5000, integer(0))
    """For how long a broker counts as out of order after its fault is over: it has to catch up."""

    def check(self) -> None:
        """The bounds are in order."""
        if self.shortest_ms > self.longest_ms:
            raise InvalidInputError(
                f"shortest_ms={self.shortest_ms} is more than longest_ms={self.longest_ms}"
            )


@dataclass(frozen=True, slots=True)
class Expectation(Options):
    """What the source of a scenario says of its outcome, for a test to hold it to."""

    owner: ClassVar[str] = "expect"

    lost: str = option("any", one_of("none", "some", "any"))
    """Whether acknowledged records are lost."""
    duplicated: str = option("any", one_of("none", "some", "any"))
    unavailable: str = option("any", one_of("none", "some", "any"))
    violations: tuple[str, ...] = option((), several(label))
    """The kinds of broken promises that the scenario is there to show."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """All that a run depends on, besides its seed."""

    name: str
    description: str = ""
    source: str = ""
    """Whose account it follows, if it is a documented case."""
    duration_ms: int = 30_000
    """For how long clients are busy and things go wrong; after it everything heals, and the cluster
    is given the time that it needs to come to rest."""
    cluster: ClusterSettings = dataclasses.field(default_factory=ClusterSettings)
    workload: WorkloadSettings = dataclasses.field(default_factory=WorkloadSettings)
    queues: QueueSettings = dataclasses.field(default_factory=QueueSettings)
    network: NetworkSettings = dataclasses.field(default_factory=NetworkSettings)
    disk: DiskSettings = dataclasses.field(default_factory=DiskSettings)
    faults: tuple[Fault, ...] = ()
    random_faults: RandomFaults = dataclasses.field(default_factory=RandomFaults)
    expect: Expectation = dataclasses.field(default_factory=Expectation)

    def __post_init__(self) -> None:
        for key, check in _TOP.items():
            if problem := check(key, getattr(self, key)):
                raise InvalidInputError(problem)
        present = self.cluster.brokers
        racks = {self.cluster.rack_of(broker) for broker in range(present)}
        for fault in self.faults:
            where = f"a fault of kind {fault.kind} at_ms={fault.at_ms}"
            if fault.at_ms + fault.within_ms >= self.duration_ms:
                raise InvalidInputError(
                    f"{where} would come after the end: duration_ms={self.duration_ms}"
                )
            if fault.kind == "add_broker":
                present += fault.count
            named = fault.brokers if isinstance(fault.brokers, tuple) else ()
            for broker in named:
                if broker >= present:
                    raise InvalidInputError(
                        f"{where} names broker {broker}; there are 0 to {present - 1}"
                    )
            for rack in fault.racks:
                if rack not in racks:
                    raise InvalidInputError(
                        f"{where} names rack {rack!r}; there are {', '.join(sorted(racks))}"
                    )

    def replace(self, changes: Mapping[str, Any]) -> Self:
        """The scenario with other options: ``{"cluster.acks": 1, "duration_ms": 5000}``.

        Raises InvalidInputError for an option that there is not, and for a wrong value.
        """
        tables: dict[str, dict[str, Any]] = {}
        top: dict[str, Any] = {}
        for path, value in changes.items():
            table, dot, key = path.rpartition(".")
            if not dot and key in _TOP:
                top[key] = value
            elif table in _TABLES:
                tables.setdefault(table, {})[key] = value
            else:
                there = [*_TOP, *(f"{each}.…" for each in _TABLES)]
                raise InvalidInputError(f"no option called {path!r}; there are {', '.join(there)}")
        for table, options in tables.items():
            before = getattr(self, table)
            known = {
                field.name: getattr(before, field.name) for field in dataclasses.fields(before)
            }
            top[table] = _options(_TABLES[table], {**known, **options}, table)
        return dataclasses.replace(self, **top)


_TOP: dict[str, Check] = {
    "name": label,
    "description": text,
    "source": text,
    "duration_ms": integer(1),
}
_TABLES: dict[str, type[Options]] = {
    "cluster": ClusterSettings,
    "workload": WorkloadSettings,
    "queues": QueueSettings,
    "network": NetworkSettings,
    "disk": DiskSettings,
    "random_faults": RandomFaults,
    "expect": Expectation,
}


def built_in_scenarios() -> list[str]:
    """The names of the scenarios that come with logstore."""
    files = (resources.files("logstore.replication") / "scenarios").iterdir()
    return sorted(file.name[: -len(".toml")] for file in files if file.name.endswith(".toml"))


def load_scenario(which: str | os.PathLike[str]) -> Scenario:
    """The scenario of a name, or in a file.

    A file is what ends in ``.toml`` or has a ``/`` in it. Raises InvalidInputError for a name that
    there is not and for what is wrong in the file, and the OSError where it cannot be read.
    """
    given = os.fspath(which)
    if given.endswith(".toml") or os.path.basename(given) != given:
        path = Path(given)
        return parse_scenario(path.read_bytes(), str(path), name=path.stem)
    known = built_in_scenarios()
    if given not in known:
        raise InvalidInputError(
            f"no scenario called {given!r}; there are {', '.join(known)}; or give a .toml file"
        )
    file = resources.files("logstore.replication") / "scenarios" / f"{given}.toml"
    return parse_scenario(file.read_bytes(), f"{given}.toml", name=given)


def parse_scenario(data: bytes, path: str, *, name: str) -> Scenario:
    """The scenario that a file's bytes describe; ``path`` is for errors.

    Raises InvalidInputError with the file, the table and the key, where there is one.
    """
    try:
        document = tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInputError(f"{path}: no TOML: {error}") from error
    try:
        return _scenario(document, name)
    except InvalidInputError as error:
        raise InvalidInputError(f"{path}: {error}") from error


def _scenario(document: Mapping[str, Any], name: str) -> Scenario:
    parts: dict[str, Any] = {"name": name}
    for key, value in document.items():
        if key in _TOP and key != "name":
            parts[key] = value
        elif key in _TABLES:
            parts[key] = _options(_TABLES[key], value, key)
        elif key == "faults":
            parts[key] = _list_of(Fault, value, key)
        else:
            known = [*(each for each in _TOP if each != "name"), *_TABLES, "faults"]
            raise InvalidInputError(f"no key or table called {key!r}; there are {', '.join(known)}")
    return Scenario(**parts)


def _options(kind: type[Options], table: Any, where: str) -> Any:
    if not isinstance(table, Mapping):
        raise InvalidInputError(f"[{where}] is to be a table, not {table!r}")
    options = {key: _frozen(value) for key, value in table.items()}
    if kind is NetworkSettings and "links" in options:
        options["links"] = _list_of(LinkSettings, table["links"], f"{where}.links")
    try:
        return kind.from_options(options)
    except InvalidInputError as error:
        raise InvalidInputError(f"[{where}] {error}") from error


def _list_of(kind: type[Options], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise InvalidInputError(f"[[{where}]] is to be a list of tables, not {value!r}")
    found = []
    for number, table in enumerate(value, start=1):
        if isinstance(table, kind):  # what a scenario is replaced from
            found.append(table)
        else:
            found.append(_options(kind, table, f"{where} {number}"))
    return tuple(found)


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
