"""What is committed, and what that means: the same for everybody, and on every in-sync replica."""

from __future__ import annotations

from collections.abc import Iterator

from logstore.replication.checkers.findings import Wrong
from logstore.replication.checkers.lineage import BatchNode, Lineage, ReplicaLog
from logstore.replication.checkers.timeline import PartitionTimeline
from logstore.replication.history import HighWatermark

__all__ = ["Committed"]


class Committed:
    """What leaders have said to be committed, of one partition: one path, that only grows.

    Unless records are lost; then it is cut to what the new leader has, and goes on from there.
    """

    def __init__(
        self, lineage: Lineage, timeline: PartitionTimeline, *, synced: bool, elr: bool
    ) -> None:
        """``synced``: what is committed has to be on stable storage, ``elr``: also eligible leader
        replicas must have it."""
        self._lineage = lineage
        self._timeline = timeline
        self._synced = synced
        self._elr = elr
        self.path = [lineage.root]
        self.most_offset = 0
        """The highest end that it ever had."""
        self.cut = False
        """Whether it ever was."""
        self._sequences: dict[int, tuple[int, int]] = {}
        """The epoch of each idempotent producer, and the sequence number that it comes to next."""

    @property
    def end_offset(self) -> int:
        return self.path[-1].next_offset

    def has(self, node: BatchNode) -> bool:
        """Whether a batch is committed."""
        return len(self.path) > node.number and self.path[node.number] is node

    # High watermarks --------------------------------------------------------------------------

    def led_to(self, event: HighWatermark) -> Iterator[Wrong]:
        """A leader has moved its high watermark."""
        yield from self._moved(event)
        if event.leader_epoch < self._timeline.unclean_epoch:
            # It goes on alone, not knowing that others did not wait for it: that is lost.
            self.most_offset = max(self.most_offset, event.offset)
            self.cut = True
            return
        if self.cut and event.leader_epoch < self._timeline.epoch:
            return  # it does not know yet what was lost
        log = self._lineage.log(event.broker)
        last = self.path[-1]
        if event.offset <= last.next_offset:
            yield from self._same(log, event)
            return
        if not log.holds(last):
            yield Wrong(
                "commit",
                f"broker {event.broker} commits up to {event.offset} in epoch {event.leader_epoch}"
                f", and has not got the batch {last}, which was committed",
            )
            return
        yield from self._grow(log, event.offset)
        if self.path[-1].next_offset < event.offset:
            yield Wrong(
                "watermark",
                f"broker {event.broker} commits up to {event.offset}, where no batch of its log "
                f"ends: the last one before that is {self.path[-1]}",
            )
        if event.leader_epoch == self._timeline.epoch or not self._timeline.losses:
            yield from self._is_everywhere(f"committed up to {event.offset}")

    def _moved(self, event: HighWatermark) -> Iterator[Wrong]:
        """A replica's high watermark only goes back where its log is cut, or it starts anew."""
        log = self._lineage.log(event.broker)
        if event.offset < log.high_watermark:
            yield Wrong(
                "watermark",
                f"the high watermark of broker {event.broker} goes back from {log.high_watermark} "
                f"to {event.offset}",
            )
        log.high_watermark = event.offset

    def _grow(self, log: ReplicaLog, offset: int) -> Iterator[Wrong]:
        source, path = log.path, self.path
        number = len(path)
        while number < len(source) and source[number].next_offset <= offset:
            node = source[number]
            path.append(node)
            number += 1
            if node.producer[0] >= 0 and (wrong := self._sequence(node)) is not None:
                yield wrong
        self.most_offset = max(self.most_offset, path[-1].next_offset)

    def _sequence(self, node: BatchNode) -> Wrong | None:
        """What an idempotent producer sent is there once, and in the order of its sending."""
        producer, epoch, first = node.producer
        known = self._sequences.get(producer)
        count = node.next_offset - node.base_offset
        self._sequences[producer] = epoch, (first + count) & 0x7FFFFFFF
        if known is None or epoch > known[0] or (epoch == known[0] and first == known[1]):
            return None
        what = "again" if epoch < known[0] or first < known[1] else "before what was to come"
        return Wrong(
            "sequence",
            f"the batch {node} of producer {producer} is committed {what}: sequence number "
            f"{first} of its epoch {epoch}, expected {known[1]} of epoch {known[0]}",
        )

    def _same(self, log: ReplicaLog, event: HighWatermark) -> Iterator[Wrong]:
        """What a replica believes to be committed is what is committed."""
        node = log.last_below(event.offset)
        if not self.has(node):
            other = self.path[min(node.number, len(self.path) - 1)]
            yield Wrong(
                "divergence",
                f"broker {event.broker} has the batch {node} below its high watermark "
                f"{event.offset}, where the batch {other} is committed",
            )

    def followed_to(self, event: HighWatermark) -> Iterator[Wrong]:
        """A follower was told a high watermark."""
        yield from self._moved(event)
        if event.leader_epoch < self._timeline.epoch:
            return
        if event.offset > self.end_offset:
            if not (self.cut and event.offset <= self.most_offset):
                yield Wrong(
                    "watermark",
                    f"broker {event.broker} takes records up to {event.offset} for committed, and "
                    f"leaders have committed those up to {self.end_offset}",
                )
            return
        yield from self._same(self._lineage.log(event.broker), event)

    # In-sync replicas -------------------------------------------------------------------------

    def in_sync_have_all(self) -> Iterator[Wrong]:
        """Whoever is in sync, or eligible, has everything that is committed."""
        return self._is_everywhere("it is in sync")

    def _is_everywhere(self, what: str) -> Iterator[Wrong]:
        timeline, last = self._timeline, self.path[-1]
        brokers = timeline.isr + timeline.elr if self._elr else timeline.isr
        for broker in brokers:
            log = self._lineage.log(broker)
            if log.holds(last) and (not self._synced or log.synced_offset >= last.next_offset):
                continue
            if timeline.storage_lost(broker):
                continue
            if log.holds(last):
                yield Wrong(
                    "unsynced",
                    f"{what}: broker {broker} has only synced what is below {log.synced_offset}, "
                    f"and the batch {last} is committed",
                )
            else:
                yield Wrong(
                    "in sync",
                    f"{what}: broker {broker} of the in-sync set {list(timeline.isr)} has not got "
                    f"the committed batch {last}; its log ends at {log.end_offset}",
                )

    # Losses -----------------------------------------------------------------------------------

    def cut_to(self, log: ReplicaLog) -> list[BatchNode]:
        """A replica leads that may lack committed batches: those are what is returned."""
        if log.holds(self.path[-1]):
            return []
        keep = log.shared_with(self.path)
        lost = self.path[keep:]
        del self.path[keep:]
        self.cut = True
        self._sequences.clear()
        for node in self.path[1:]:
            if node.producer[0] >= 0:
                producer, epoch, first = node.producer
                count = node.next_offset - node.base_offset
                self._sequences[producer] = epoch, (first + count) & 0x7FFFFFFF
        return lost
