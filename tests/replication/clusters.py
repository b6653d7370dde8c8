"""What the tests of clusters share: small scenarios, what happened in them, what is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, get_args

from logstore.replication.cluster import Cluster
from logstore.replication.history import Event
from logstore.replication.kernel import Simulation
from logstore.replication.replica import Replica
from logstore.replication.scenario import Scenario

QUICK = {
    "cluster.session_timeout_ms": 1000,
    "cluster.heartbeat_interval_ms": 200,
    "cluster.replica_lag_time_max_ms": 1000,
    "cluster.replica_fetch_backoff_ms": 100,
    "workload.request_timeout_ms": 2000,
    "workload.delivery_timeout_ms": 20_000,
    "workload.records_per_second": 50,
    "duration_ms": 6000,
}
"""Options under which things happen soon."""

_E = TypeVar("_E")


class Run:
    """A cluster, and all that has happened in it."""

    def __init__(self, seed: int = 1, /, **options: Any) -> None:
        """``options`` are those of a scenario, with ``__`` for the dot."""
        self.simulation = Simulation(seed)
        self.events: list[Any] = []
        for kind in get_args(Event):
            self.simulation.history.subscribe(kind, self.events.append)
        changes = {**QUICK, **{key.replace("__", "."): value for key, value in options.items()}}
        self.cluster = Cluster(self.simulation, Scenario("test").replace(changes))

    def at(self, at_ms: int, function: Callable[..., object], *args: Any) -> None:
        """Let something happen."""
        self.simulation.at(at_ms * 1000, function, *args)

    def until(self, at_ms: int) -> None:
        """Let time pass."""
        self.simulation.run_until(at_ms * 1000)

    def all(self, kind: type[_E]) -> list[_E]:
        """The events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def finish(self) -> None:
        """Let the scenario come to its end, and everything to rest."""
        self.cluster.run()
        assert self.cluster.come_to_rest()


def ids(replica: Replica) -> list[str]:
    """The ids of the records in a replica's log."""
    found: list[str] = []
    offset = 0
    while offset < replica.end:
        fetch = replica.log.read(offset)
        found += [(record.value or b"").split(b" ")[0].decode() for record in fetch.records()]
        offset = fetch.next_offset
    return found
