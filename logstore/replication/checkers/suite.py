"""All checkers of one run: they subscribe to its history, and look after every event."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Protocol

from logstore.replication.checkers.commits import Committed
from logstore.replication.checkers.findings import Findings, Wrong
from logstore.replication.checkers.leaders import (
    appended_rightly,
    changed_rightly,
    elected_rightly,
)
from logstore.replication.checkers.lineage import BatchNode, Lineage, last_below
from logstore.replication.checkers.losses import Missings
from logstore.replication.checkers.readers import Readers
from logstore.replication.checkers.timeline import PartitionTimeline, Timeline
from logstore.replication.history import (
    Acknowledged,
    Appended,
    BitRot,
    ConsumerReset,
    Crashed,
    Delivered,
    DiskLost,
    Elected,
    HighWatermark,
    History,
    IsrChanged,
    Leads,
    Opened,
    Refused,
    ReplicaFailed,
    ReplicasChanged,
    Started,
    Synced,
    Truncated,
)
from logstore.replication.mirrored_queue import QUEUE_PREFIX
from logstore.replication.promise import PromiseSettings

__all__ = ["CheckerSettings", "Checkers", "PartitionChecks"]


class CheckerSettings(PromiseSettings, Protocol):
    """What checkers need to know of a cluster (``settings.ClusterSettings``)."""

    @property
    def flush(self) -> str: ...


class PartitionChecks:
    """What is known of one partition."""

    def __init__(
        self,
        partition: str,
        settings: CheckerSettings,
        timeline: PartitionTimeline,
        *,
        acks: Literal[0, 1, "all"],
        idempotent: bool,
    ) -> None:
        self.acks = acks
        self.idempotent = idempotent
        self.lineage = Lineage(partition)
        self.timeline = timeline
        self.committed = Committed(
            self.lineage,
            timeline,
            synced=settings.flush == "ack",
            elr=settings.eligible_leader_replicas,
        )
        self.readers = Readers(self.committed, timeline, idempotent=idempotent)
        self.missings = Missings(self.lineage, timeline, settings)
        self.acknowledged: list[BatchNode] = []
        """Batches that their producers were told to be there."""
        self.unplaced: list[Acknowledged] = []
        """Acknowledgements without a batch: those with ``acks=0``."""
        self.pending: list[BatchNode] = []
        """Acknowledged batches that were not committed at the last election."""
        self.refused: list[Refused] = []
        """What producers have given up, and is surely not there."""

    def place(self, event: Acknowledged) -> BatchNode | None:
        """The batch that an acknowledgement is about: the answering leader's own one, or, where it
        was asked again for what an earlier leader had appended, the one that it has there."""
        node = self.lineage.led.get((event.base_offset, event.leader_epoch))
        if node is not None:
            return node
        base = event.base_offset
        end = base + len(event.record_ids)
        leader = self.timeline.leaders.get(event.leader_epoch, -1)
        logs = [self.lineage.log(leader), *self.lineage.logs.values()]
        for path in (self.committed.path, *(log.path for log in logs)):
            found = last_below(path, end)
            if found.base_offset == base and found.epoch <= event.leader_epoch:
                return found
        return None


class Checkers:
    """Looks at everything that happens. What it finds is in ``findings``."""

    def __init__(
        self, history: History, settings: CheckerSettings, *, idempotent: bool = True
    ) -> None:
        """``idempotent``: whether producers are."""
        unsound = "" if settings.epoch_truncation == "KIP-279" else settings.epoch_truncation
        self.findings = Findings(history, unsound=unsound)
        self.partitions: dict[str, PartitionChecks] = {}
        self._settings = settings
        self._idempotent = idempotent
        self._synced = settings.flush == "ack"
        self._timeline = Timeline(settings.flush)
        on = history.subscribe
        on(Opened, self._opened)
        on(Appended, self._appended)
        on(Synced, self._was_synced)
        on(Truncated, self._truncated)
        on(HighWatermark, self._high_watermark)
        on(Acknowledged, self._acknowledged)
        on(Refused, self._refused)
        on(Delivered, self._delivered)
        on(ConsumerReset, self._reset)
        on(Elected, self._elected)
        on(Leads, self._took_lead)
        on(IsrChanged, self._isr_changed)
        on(ReplicasChanged, self._timeline.noted)
        on(Crashed, self._timeline.crashed)
        on(Started, self._timeline.started)
        on(DiskLost, self._disk_lost)
        on(BitRot, self._timeline.rotted)
        on(ReplicaFailed, self._timeline.rotted)

    def of(self, partition: str) -> PartitionChecks:
        """What is known of a partition."""
        found = self.partitions.get(partition)
        if found is None:
            timeline = self._timeline.of(partition)
            # A queue's publishers wait for all replicas, and are idempotent, whatever others do.
            queue = partition.startswith(QUEUE_PREFIX)
            found = self.partitions[partition] = PartitionChecks(
                partition,
                self._settings,
                timeline,
                acks="all" if queue else self._settings.acks,
                idempotent=queue or self._idempotent,
            )
        return found

    def _tell(
        self, wrongs: Iterable[Wrong], at_us: int, partition: str, *, sound: bool = False
    ) -> None:
        for kind, text in wrongs:
            self.findings.broken(kind, at_us, partition, text, sound=sound)

    # Replicas ---------------------------------------------------------------------------------

    def _appended(self, event: Appended) -> None:
        checks = self.partitions.get(event.partition) or self.of(event.partition)
        wrong = checks.lineage.appended(event)
        if wrong is not None:
            self.findings.broken(wrong.kind, event.at_us, event.partition, wrong.text)
        if event.as_leader and checks.timeline.leaders.get(event.leader_epoch) != event.broker:
            rightly = appended_rightly(event, checks.timeline)
            self._tell(rightly, event.at_us, event.partition, sound=True)

    def _was_synced(self, event: Synced) -> None:
        log = self.of(event.partition).lineage.log(event.broker)
        log.synced_offset = max(log.synced_offset, min(event.offset, log.end_offset))

    def _truncated(self, event: Truncated) -> None:
        checks = self.of(event.partition)
        checks.lineage.truncated(event)
        self._timeline.noted(event)
        if event.broker == checks.timeline.leader:
            self._leads(checks, event.broker, event.at_us)

    def _disk_lost(self, event: DiskLost) -> None:
        self._timeline.disk_lost(event)
        for checks in self.partitions.values():
            checks.lineage.emptied(event.broker)

    def _opened(self, event: Opened) -> None:
        # A broker that has started anew leads nothing before it is elected again.
        checks = self.of(event.partition)
        checks.lineage.opened(event)
        checks.timeline.opened(event.broker)

    def _high_watermark(self, event: HighWatermark) -> None:
        committed = self.of(event.partition).committed
        wrongs = committed.led_to(event) if event.as_leader else committed.followed_to(event)
        for kind, text in wrongs:
            self.findings.broken(kind, event.at_us, event.partition, text)

    # The controller ---------------------------------------------------------------------------

    def _elected(self, event: Elected) -> None:
        checks = self.of(event.partition)
        timeline = checks.timeline
        rightly = elected_rightly(event, timeline, unclean_allowed=self._settings.unclean_election)
        self._tell(rightly, event.at_us, event.partition, sound=True)
        timeline.changed(event)
        timeline.settle(event)

    def _took_lead(self, event: Leads) -> None:
        checks = self.of(event.partition)
        if event.leader_epoch == checks.timeline.epoch:
            self._leads(checks, event.broker, event.at_us)
            checks.timeline.leads(event)
            self._tell(checks.committed.in_sync_have_all(), event.at_us, event.partition)

    def _leads(self, checks: PartitionChecks, broker: int, at_us: int) -> None:
        """A replica leads, from now on or with less than before: what it has not got is missing."""
        log = checks.lineage.log(broker)
        committed = checks.committed
        lost = committed.cut_to(log)
        if lost:
            checks.readers.cut(committed.end_offset)
            self._missing(checks, lost, at_us, committed=True, whose=f"broker {broker}")
        checks.pending = [node for node in checks.pending if not committed.has(node)]
        lacking = [
            node
            for node in checks.pending
            if not log.holds(node) and node not in checks.missings.by_node
        ]
        everywhere = checks.acks == "all"
        self._missing(checks, lacking, at_us, committed=everywhere, whose=f"broker {broker}")

    def _missing(
        self,
        checks: PartitionChecks,
        nodes: list[BatchNode],
        at_us: int,
        *,
        committed: bool,
        whose: str,
    ) -> None:
        for missing in checks.missings.note(nodes, at_us, committed=committed):
            told = missing.node.acknowledged
            ids = f" ({told.record_ids[0]} and on, acknowledged at {told.at_us} us)" if told else ""
            self.findings.broken(
                "lost",
                at_us,
                checks.lineage.partition,
                f"{whose} leads without the batch {missing.node}{ids}, though "
                f"{missing.promise.reasons[0]}",
            )

    def _isr_changed(self, event: IsrChanged) -> None:
        checks = self.of(event.partition)
        rightly = changed_rightly(event, checks.timeline)
        self._tell(rightly, event.at_us, event.partition, sound=True)
        checks.timeline.changed(event)
        checks.timeline.settle(event)
        if checks.timeline.led:
            self._tell(checks.committed.in_sync_have_all(), event.at_us, event.partition)

    # Clients ----------------------------------------------------------------------------------

    def _acknowledged(self, event: Acknowledged) -> None:
        checks = self.partitions.get(event.partition) or self.of(event.partition)
        if event.base_offset < 0:
            checks.unplaced.append(event)
            return
        node = checks.place(event)
        if node is None:
            self.findings.broken(
                "acknowledged",
                event.at_us,
                event.partition,
                f"{event.producer} was told that {event.record_ids[0]} is at offset "
                f"{event.base_offset}, where no leader up to epoch {event.leader_epoch} has "
                "appended",
            )
            return
        node.acknowledged = event
        checks.acknowledged.append(node)
        committed = checks.committed
        if committed.has(node):
            return
        end = event.base_offset + len(event.record_ids)
        if checks.acks == "all" and end > committed.most_offset:
            self.findings.broken(
                "acknowledged",
                event.at_us,
                event.partition,
                f"{event.producer} was told that {event.record_ids[0]} at offset "
                f"{event.base_offset} is there, and what is committed ends at "
                f"{committed.end_offset}",
            )
        self._check_synced(checks, node, event)
        checks.pending.append(node)
        timeline = checks.timeline
        if timeline.leader >= 0 and not checks.lineage.log(timeline.leader).holds(node):
            everywhere = checks.acks == "all"
            whose = f"broker {timeline.leader}"
            self._missing(checks, [node], event.at_us, committed=everywhere, whose=whose)

    def _check_synced(self, checks: PartitionChecks, node: BatchNode, event: Acknowledged) -> None:
        """With ``flush="ack"`` at least the leader has it on stable storage."""
        log = checks.lineage.log(node.leader)
        if self._synced and log.holds(node) and log.synced_offset < node.next_offset:
            self.findings.broken(
                "unsynced",
                event.at_us,
                event.partition,
                f"{event.producer} was told that {event.record_ids[0]} at offset "
                f"{event.base_offset} is there, and broker {node.leader} has only synced what is "
                f"below {log.synced_offset}",
            )

    def _refused(self, event: Refused) -> None:
        if event.certain:
            self.of(event.partition).refused.append(event)

    def _delivered(self, event: Delivered) -> None:
        for kind, text in self.of(event.partition).readers.delivered(event):
            self.findings.broken(kind, event.at_us, event.partition, text)

    def _reset(self, event: ConsumerReset) -> None:
        for kind, text in self.of(event.partition).readers.reset(event):
            self.findings.broken(kind, event.at_us, event.partition, text)
