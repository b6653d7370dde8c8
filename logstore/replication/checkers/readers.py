"""What consumers see: every committed record once, in order, the same for all, and never less."""

from __future__ import annotations

from collections.abc import Iterator

from logstore.replication.checkers.commits import Committed
from logstore.replication.checkers.findings import Wrong
from logstore.replication.checkers.timeline import PartitionTimeline
from logstore.replication.history import ConsumerReset, Delivered

__all__ = ["Readers"]


class _Place:
    """Where a consumer has come to."""

    __slots__ = ("high_watermark", "leader_epoch", "next_offset")

    def __init__(self) -> None:
        self.next_offset = 0
        self.high_watermark = 0
        """As its leader has told it last."""
        self.leader_epoch = -1


class Readers:
    """The consumers of one partition; all begin at its start."""

    def __init__(
        self, committed: Committed, timeline: PartitionTimeline, *, idempotent: bool
    ) -> None:
        """``idempotent``: producers are, so that no record may be there twice."""
        self._committed = committed
        self._timeline = timeline
        self._idempotent = idempotent
        self._places: dict[str, _Place] = {}
        self.ids: list[str] = []
        """The record at each offset, as the first consumer that came there has read it."""
        self._seen: set[str] = set()

    def delivered(self, event: Delivered) -> Iterator[Wrong]:
        """A consumer has read records."""
        place = self._places.get(event.consumer)
        if place is None:
            place = self._places[event.consumer] = _Place()
        committed = self._committed
        base, ids = event.base_offset, event.record_ids
        end = base + len(ids)
        stale = committed.cut and event.leader_epoch < self._timeline.epoch
        if base != place.next_offset:
            yield Wrong(
                "gap",
                f"consumer {event.consumer} has read offset {base}, and was to read "
                f"{place.next_offset}",
            )
        place.next_offset = end
        # Another leader may have been told less so far, but has all that was read.
        known = place.high_watermark if event.leader_epoch == place.leader_epoch else end
        if event.high_watermark < max(known, end):
            yield Wrong(
                "watermark",
                f"consumer {event.consumer} has read up to offset {end} under the high watermark "
                f"{event.high_watermark}; the same leader had told it {known}",
            )
        place.high_watermark, place.leader_epoch = event.high_watermark, event.leader_epoch
        if stale:
            return
        if end > committed.end_offset:
            yield Wrong(
                "uncommitted",
                f"consumer {event.consumer} has read offset {end - 1}, and what is committed ends "
                f"at {committed.end_offset}",
            )
        yield from self._compare(event, base, ids)

    def _compare(self, event: Delivered, base: int, ids: tuple[str, ...]) -> Iterator[Wrong]:
        known = self.ids
        if base < len(known):
            before = known[base : base + len(ids)]
            if tuple(before) != ids[: len(before)]:
                place = next(n for n, (a, b) in enumerate(zip(before, ids, strict=False)) if a != b)
                yield Wrong(
                    "disagreement",
                    f"consumer {event.consumer} has read {ids[place]} at offset {base + place}, "
                    f"where {before[place]} was read before",
                )
            ids = ids[len(before) :]
        elif base > len(known):
            return  # a gap, and said so
        if self._idempotent and ids:
            if not self._seen.isdisjoint(ids):
                twice = [record for record in ids if record in self._seen]
                yield Wrong(
                    "twice",
                    f"consumer {event.consumer} has read {twice[0]} at two offsets: the second time"
                    f" at {base + len(event.record_ids) - len(ids) + ids.index(twice[0])}",
                )
            self._seen.update(ids)
        known.extend(ids)

    def reset(self, event: ConsumerReset) -> Iterator[Wrong]:
        """A consumer goes on at another offset."""
        place = self._places.setdefault(event.consumer, _Place())
        if not self._committed.cut:
            yield Wrong(
                "reset",
                f"consumer {event.consumer} went from offset {event.from_offset} to "
                f"{event.to_offset}, and no committed record was lost",
            )
        place.next_offset = event.to_offset

    def cut(self, offset: int) -> list[str]:
        """What was committed from ``offset`` on is lost; returns what was read of it."""
        lost = self.ids[offset:]
        del self.ids[offset:]
        self._seen.difference_update(lost)
        return lost
