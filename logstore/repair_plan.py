"""What a repair would take out of a segment's log: decided from what is in it, changing nothing.

A place is *torn* where a crash in the middle of a write explains it, as an opening judges: at the
end of the last segment, behind everything that was known to be whole. Zeros at the end of a closed
segment are harmless where no offset is missing behind them. All else is *damaged*: records were
there, and are not, or not any more what they were.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

from logstore.segments import offset_index
from logstore.segments.batch import Batch
from logstore.segments.check_batch import batch_problems
from logstore.segments.checkpoint import EpochEntry
from logstore.segments.files import File
from logstore.segments.scan import Damage, survey

__all__ = [
    "Cut",
    "EpochAt",
    "Known",
    "SegmentPlan",
    "epochs_suit",
    "longest_ascent",
    "plan_segment",
    "wrong_epochs",
]


class Cut(NamedTuple):
    """A place of a log that has to go."""

    kind: Literal["torn", "damaged"]
    position: int
    size: int
    reason: str


class SegmentPlan(NamedTuple):
    """What is to go from one segment's log."""

    base_offset: int
    path: str
    size: int
    cuts: list[Cut]
    """By position; they do not overlap."""
    next_offset: int
    """The offset behind what would be left."""

    @property
    def damaged(self) -> bool:
        """Whether more than a torn end has to go."""
        return any(cut.kind == "damaged" for cut in self.cuts)

    def kept(self) -> list[tuple[int, int]]:
        """The ranges of bytes that stay, as (start, end)."""
        ranges = []
        start = 0
        for cut in self.cuts:
            if cut.position > start:
                ranges.append((start, cut.position))
            start = cut.position + cut.size
        if self.size > start:
            ranges.append((start, self.size))
        return ranges


class Known(NamedTuple):
    """What is known of the active segment from elsewhere: up to where it was whole once."""

    active_base: int = -1
    valid_end: int = 0
    next_offset: int = 0


class _Place(NamedTuple):
    position: int
    size: int
    base_offset: int
    next_offset: int


def plan_segment(file: File, base_offset: int, following: int | None, known: Known) -> SegmentPlan:
    """What has to go from the log ``file`` of the segment ``base_offset``.

    ``following`` is the base offset of the next segment, None for the last one.
    """
    size = file.size()
    cuts: list[Cut] = []
    torn: set[int] = set()
    good: list[_Place] = []
    for item in survey(file, end=size):
        if isinstance(item, Damage):
            cuts.append(Cut("damaged", item.position, item.size, item.reason))
            torn.add(item.position)
            continue
        header = item.header
        reason = _problem(item, base_offset, following)
        if reason is None:
            place = _Place(item.position, header.size, header.base_offset, header.next_offset)
            good.append(place)
            continue
        cuts.append(Cut("damaged", item.position, header.size, reason))
        if not item.crc_ok:
            torn.add(item.position)
    stay = longest_ascent([(place.base_offset, place.next_offset) for place in good])
    for number, place in enumerate(good):
        if number not in stay:
            reason = f"its offsets, from {place.base_offset} on, stand in no order with the others"
            cuts.append(Cut("damaged", place.position, place.size, reason))
    cuts.sort(key=lambda cut: cut.position)
    next_offset = max((good[number].next_offset for number in stay), default=base_offset)
    if following is None:
        # A file that is shorter than it was known to be was cut by somebody: what is left counts.
        believed = known.active_base == base_offset and known.valid_end <= size
        _mark_torn_end(cuts, size, torn, known.valid_end if believed else 0)
    elif next_offset == following:
        _mark_torn_end(cuts, size, {p for p in torn if _is_zeros(cuts, p)}, 0)
    return SegmentPlan(base_offset, file.path, size, cuts, next_offset)


def _problem(batch: Batch, base_offset: int, following: int | None) -> str | None:
    """What is wrong with a batch, by itself and for this segment; None where nothing is."""
    problem = next(batch_problems(batch), None)
    if problem is not None:
        if problem.expected is None:
            return problem.text
        return f"{problem.text}: expected {problem.expected}, found {problem.found}"
    header = batch.header
    highest = base_offset + offset_index.MAX_RELATIVE
    if following is not None:
        highest = min(highest, following - 1)
    if base_offset <= header.base_offset and header.last_offset <= highest:
        return None
    return (
        f"its offsets lie outside of the segment: expected {base_offset} to {highest}, "
        f"found {header.base_offset} to {header.last_offset}"
    )


def _is_zeros(cuts: Sequence[Cut], position: int) -> bool:
    return any(cut.position == position and cut.reason.startswith("zeros") for cut in cuts)


def _mark_torn_end(cuts: list[Cut], size: int, torn: set[int], whole_until: int) -> None:
    """Call the last places torn that reach to the end of the file, as far as they may be."""
    end = size
    for number in range(len(cuts) - 1, -1, -1):
        cut = cuts[number]
        if cut.position + cut.size != end or cut.position not in torn or cut.position < whole_until:
            return
        cuts[number] = cut._replace(kind="torn")
        end = cut.position


def longest_ascent(ranges: Sequence[tuple[int, int]]) -> set[int]:
    """The numbers of the most ``ranges`` (start, end) of which none begins before the end of one
    in front of it.

    A batch's base offset has no checksum. Where offsets do not ascend, one that went wrong may be
    the one in front; so as many as possible stay, instead of all that follow an offset too high.
    Where as many could stay in several ways, those stay that others agree with: how many offsets a
    batch has is covered by its checksum, so batches without gaps between them have the same
    difference between their start and the offsets that the ones in front have together.
    """
    if all(before[1] <= after[0] for before, after in itertools.pairwise(ranges)):
        return set(range(len(ranges)))
    lengths = itertools.accumulate((end - start for start, end in ranges), initial=0)
    shifts = [start - length for (start, _), length in zip(ranges, lengths, strict=False)]
    agreeing = Counter(shifts)
    # For each end in order, the best chain (its weight, and the range it ends with) that ends there
    # or before, as a tree of prefix maxima.
    ends = sorted({end for _, end in ranges})
    tree = [(0, -1)] * (len(ends) + 1)
    before: list[int] = []
    best = (0, -1)
    for number, (start, end) in enumerate(ranges):
        chain = (0, -1)
        at = bisect_right(ends, start)
        while at:
            chain = max(chain, tree[at])
            at &= at - 1
        before.append(chain[1])
        agrees = agreeing[shifts[number]] > 1
        chain = (chain[0] + 2 * len(ranges) + agrees, number)
        best = max(best, chain)
        at = bisect_left(ends, end) + 1
        while at <= len(ends):
            tree[at] = max(tree[at], chain)
            at += at & -at
    stay = set()
    number = best[1]
    while number >= 0:
        stay.add(number)
        number = before[number]
    return stay


# Leader epochs --------------------------------------------------------------------------------


class EpochAt(NamedTuple):
    """The leader epoch of a batch."""

    path: str
    position: int
    offset: int
    next_offset: int
    epoch: int


def wrong_epochs(found: Sequence[EpochAt], stored: Sequence[EpochEntry]) -> list[EpochAt]:
    """The batches whose leader epochs are wrong, with the right ones.

    A leader epoch has no checksum. What the checkpoint (``stored``) says counts if most batches
    agree with it; otherwise as many as possible stay in order, and the others follow them.
    """
    told = [_epoch_of(at.offset, stored) for at in found]
    agreeing = sum(at.epoch == epoch for at, epoch in zip(found, told, strict=True))
    if agreeing * 2 > len(found):
        return [
            at._replace(epoch=epoch)
            for at, epoch in zip(found, told, strict=True)
            if epoch is not None and at.epoch not in (-1, epoch)
        ]
    known = [at for at in found if at.epoch >= 0]
    stay = longest_ascent([(at.epoch, at.epoch) for at in known])
    first = known[min(stay)].epoch if stay else 0
    wrong = [at._replace(epoch=first) for at in found if at.epoch < -1]
    latest = first
    for number, at in enumerate(known):
        if number in stay:
            latest = at.epoch
        else:
            wrong.append(at._replace(epoch=latest))
    return wrong


def epochs_suit(found: Sequence[EpochAt], stored: Sequence[EpochEntry]) -> bool:
    """Whether a checkpoint is right about all batches, and begins no epoch behind them."""
    end = max((at.next_offset for at in found), default=None)
    if not stored or (end is not None and stored[-1].start_offset > end):
        return False
    return all(at.epoch < 0 or _epoch_of(at.offset, stored) in (None, at.epoch) for at in found)


def _epoch_of(offset: int, stored: Sequence[EpochEntry]) -> int | None:
    epochs = [entry.epoch for entry in stored if entry.start_offset <= offset]
    return epochs[-1] if epochs else None
