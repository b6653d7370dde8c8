"""One run of a scenario under one seed, with all checkers, to its outcome."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable

from logstore.replication.checkers.ending import Ending, Left, compare
from logstore.replication.checkers.queues import QueueCheckers
from logstore.replication.checkers.shrinking import Shrinking
from logstore.replication.checkers.suite import Checkers, PartitionChecks
from logstore.replication.cluster import Cluster
from logstore.replication.history import History
from logstore.replication.kernel import Simulation
from logstore.replication.measures import Measures
from logstore.replication.mirrored_queue import QUEUE_PREFIX
from logstore.replication.outcome import MOST_KEPT, Outcome, QueueOutcome
from logstore.replication.replica import Replica
from logstore.replication.scenario import Scenario
from logstore.segments.batch import iter_batches
from logstore.segments.errors import FormatError

__all__ = ["Run", "run_seed"]

_READ_BYTES = 8 << 20


class Run:
    """A run, for whoever wants to look at the cluster in it."""

    def __init__(
        self, scenario: Scenario, seed: int, *, bugs: frozenset[str] = frozenset()
    ) -> None:
        """``bugs`` are planted faults of the protocol (``bugs.BUGS``)."""
        self.scenario = scenario
        self.seed = seed
        self.simulation = Simulation(seed)
        settings = scenario.cluster
        history = self.history
        # As in Kafka, a producer that does not wait for all replicas is not idempotent.
        self.idempotent = scenario.workload.idempotent and settings.acks == "all"
        """Whether producers are."""
        self.checkers = Checkers(history, settings, idempotent=self.idempotent)
        self.queue_checkers = QueueCheckers(history, self.checkers)
        Shrinking(self.simulation, self.checkers, scenario)
        self.measures = Measures(
            history, acks=settings.acks, min_insync_replicas=settings.min_insync_replicas
        )
        self.cluster: Cluster | None = None
        self._bugs = bugs

    @property
    def history(self) -> History:
        """What happens; to be subscribed to before :meth:`finish`."""
        return self.simulation.history

    def finish(self) -> Outcome:
        """Run it, let everything heal, and look at what is left."""
        scenario, simulation = self.scenario, self.simulation
        cluster = self.cluster = Cluster(simulation, scenario, bugs=self._bugs)
        cluster.run()
        unavailable_us = self.measures.unavailable_us(simulation.now_us)
        if not cluster.come_to_rest():
            self._tell_unrest(cluster)
        endings = [self._ending(cluster, name) for name in cluster.partitions]
        queues = self._end_of_queues(cluster, endings) if cluster.queues else None
        return self._outcome(cluster, endings, unavailable_us, queues)

    # The end ----------------------------------------------------------------------------------

    def _tell_unrest(self, cluster: Cluster) -> None:
        """Everything is healed, and yet the replicas do not come to the same end."""
        for name in cluster.partitions:
            state = cluster.controller.partitions[name]
            ends = {node: replica.end for node, replica in cluster.replicas(name).items()}
            rotten = self.checkers.of(name).timeline.has_rotted(state.leader)
            if not rotten and (state.leader < 0 or len(set(ends.values())) > 1):
                self.checkers.findings.broken(
                    "no rest",
                    self.simulation.now_us,
                    name,
                    f"all faults are over, and broker {state.leader} leads, with the in-sync set "
                    f"{list(state.isr)} and logs that end at {ends}",
                )

    def _ending(self, cluster: Cluster, name: str) -> Ending:
        left = _left(cluster, name, self.checkers.of(name))
        in_order = self.idempotent or self.scenario.workload.max_in_flight == 1
        return self._compare(name, left, in_order=in_order)

    def _compare(self, name: str, left: Left, *, in_order: bool) -> Ending:
        return compare(
            self.checkers.of(name),
            left,
            self.checkers.findings,
            at_us=self.simulation.now_us,
            in_order=in_order,
            done=self.queue_checkers.done(name) if name.startswith(QUEUE_PREFIX) else frozenset(),
        )

    def _end_of_queues(self, cluster: Cluster, endings: list[Ending]) -> QueueOutcome:
        """What became of the queues; their endings are added to those of the topic."""
        told, checkers = QueueOutcome(), self.queue_checkers
        for name in cluster.queues:
            left = _left(cluster, name, self.checkers.of(name))
            machines = {
                node: broker.queues[name].machine
                for node, broker in cluster.brokers.items()
                if node in left.logs and node not in left.rotten and name in broker.queues
            }
            returned = checkers.at_the_end(name, machines, left.ids, self.simulation.now_us)
            for loss in returned:
                told.acknowledgements_lost += len(loss.record_ids)
                for reason in loss.reasons:
                    told.acknowledgements_lost_because[reason] += len(loss.record_ids)
            ending = self._compare(name, left, in_order=True)
            told.lost += ending.lost
            told.waiting += len(next(iter(machines.values())).outstanding()) if machines else 0
            endings.append(ending._replace(losses=ending.losses + returned))
        told.confirmed = self.measures.confirmed
        told.delivered, told.redelivered = checkers.delivered, checkers.redeliveries
        told.acknowledged = checkers.settled
        return told

    def _outcome(
        self,
        cluster: Cluster,
        endings: list[Ending],
        unavailable_us: int,
        queues: QueueOutcome | None,
    ) -> Outcome:
        settings, findings, measures = self.scenario.cluster, self.checkers.findings, self.measures
        losses = [loss for ending in endings for loss in ending.losses]
        because: Counter[str] = Counter()
        for loss in losses:
            for reason in loss.reasons if loss.what == "records" else ():
                because[reason] += len(loss.record_ids)
        return Outcome(
            settings.replication_factor,
            settings.acks,
            settings.min_insync_replicas,
            settings.unclean_election,
            (self.seed,),
            acknowledged=measures.acknowledged,
            lost=sum(ending.lost for ending in endings),
            duplicated=sum(ending.duplicated for ending in endings),
            refused=measures.refused,
            unavailable_ms=unavailable_us // 1000,
            duration_ms=self.scenario.duration_ms,
            latencies_us=measures.latencies_us,
            network_bytes=cluster.network.network_bytes,
            between_racks_bytes=cluster.network.between_racks_bytes,
            disk_bytes=sum(disk.used_bytes for disk in cluster.disks.values()),
            losses=[(self.seed, loss) for loss in losses[:MOST_KEPT]],
            lost_because=because,
            violations=[(self.seed, violation) for violation in findings.violations],
            violation_count=findings.violation_count,
            known=[(self.seed, violation) for violation in findings.known],
            queues=queues,
        )


def run_seed(
    scenario: Scenario,
    seed: int,
    *,
    bugs: frozenset[str] = frozenset(),
    watch: Callable[[History], object] | None = None,
    keep: str | os.PathLike[str] | None = None,
) -> Outcome:
    """Run a scenario under a seed; the same two give the same outcome everywhere.

    ``watch`` is given the history before anything happens in it, to subscribe. ``keep`` names a
    directory into which all brokers' disks are written at the end. ``bugs``: see ``bugs.BUGS``.
    """
    run = Run(scenario, seed, bugs=bugs)
    if watch is not None:
        watch(run.history)
    outcome = run.finish()
    if keep is not None and run.cluster is not None:
        run.cluster.keep(keep)
    return outcome


def _left(cluster: Cluster, name: str, checks: PartitionChecks) -> Left:
    """What can be read of a partition at its in-sync replicas."""
    state = cluster.controller.partitions[name]
    replicas = cluster.replicas(name)
    contents: dict[bytes, list[str]] = {}  # most logs are the same, and are decoded once
    logs: dict[int, list[str]] = {}
    rotten = []
    for node in state.isr:
        if node not in replicas:
            continue
        data, whole = _read_all(replicas[node])
        if data not in contents:
            contents[data], sound = _ids(data)
            whole = whole and sound
        logs[node] = contents[data]
        if not whole:
            rotten.append(node)
    leader = state.leader if state.leader in logs else -1
    return Left(leader, logs, frozenset(filter(checks.timeline.has_rotted, rotten)))


def _read_all(replica: Replica) -> tuple[bytes, bool]:
    """All batches of a log as far as they can be read, and whether that was all."""
    parts: list[bytes] = []
    offset = replica.log.log_start_offset
    while offset < replica.end:
        try:
            fetch = replica.read(offset, max_bytes=_READ_BYTES)
        except FormatError:
            return b"".join(parts), False
        if fetch.next_offset <= offset:
            return b"".join(parts), False
        parts.append(fetch.data)
        offset = fetch.next_offset
    return b"".join(parts), True


def _ids(data: bytes) -> tuple[list[str], bool]:
    """The ids of all records, as far as they can be read, and whether that was all."""
    ids: list[str] = []
    try:
        for batch in iter_batches(data):
            batch.check_crc()
            ids += [
                (record.value or b"").partition(b" ")[0].decode()
                for record in batch.records()
                if record.key is None  # a key is that of a queue's command
            ]
    except FormatError:
        return ids, False
    return ids, True
