"""Reading the messages of a lease, and seeing which of them may be delivered now."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import chain, repeat
from operator import itemgetter
from typing import Any, Generic, NamedTuple, TypeVar

from logstore.errors import OffsetOutOfRangeError
from logstore.log import PartitionLog
from logstore.queues.message import Delivered, Message
from logstore.queues.properties import PREFIX, Properties
from logstore.segments.batch import Batch
from logstore.segments.record import Record

__all__ = ["MessageReader", "Reader", "Verdicts", "due_time", "expiry", "judge"]

_new_tuple: Any = tuple.__new__
_offset_of_row = itemgetter(0)
_headers_of = itemgetter(5)
_timestamp_of = itemgetter(2)
_name_of = itemgetter(0)

_SLACK_BYTES = 256
_MOST_BYTES = 8 << 20
"""About as much is read for one take."""

_SPECIAL = frozenset(
    PREFIX + name for name in ("expiration", "delay_ms", "deliver_at_ms", "delivery_mode")
)
"""The properties that can keep a message from being delivered now."""
_TRANSIENT = 1


M_co = TypeVar("M_co", bound=Delivered, covariant=True)


class Reader(Generic[M_co]):
    """Reads a log by runs of offsets. Usable from many threads."""

    def __init__(self, log: PartitionLog, row_type: type[M_co]) -> None:
        """``row_type`` is made of a handle and the fields of a record."""
        self._log = log
        self._row_type = row_type
        self._kept: tuple[int, int, list[Record]] = (0, 0, [])
        """The batch that was decoded last, of which somebody may want more: first offset, the one
        behind the last, records. Replaced as a whole."""
        self.fresh: tuple[Any, ...] = (-1,)
        """The fields of the record that was appended here last, if it was alone: whoever waits for
        it in this process need not read it. Replaced as a whole."""
        self._record_bytes = 200.0
        """About how much a record takes in the log, as far as is known."""

    def room(self) -> int:
        """About how many messages may be read for one take."""
        return max(1, int(_MOST_BYTES / self._record_bytes))

    def read(self, first: int, length: int, handle: object) -> list[M_co]:
        """The messages of ``length`` offsets from ``first`` on, those that the log has not got left
        out. Raises FormatError where the log is damaged."""
        fresh = self.fresh
        if length == 1 and fresh[0] == first:
            return [_new_tuple(self._row_type, (handle, *fresh))]
        end = first + length
        offset = first
        messages: list[M_co] = []
        while offset < end:
            kept_first, kept_end, rows = self._kept
            if kept_first <= offset < kept_end:
                messages += self._chosen(rows, offset, end, handle)
                offset = kept_end
                continue
            size = int((end - offset) * self._record_bytes) + _SLACK_BYTES
            try:
                fetch = self._log.read(offset, max_bytes=min(size, _MOST_BYTES))
            except OffsetOutOfRangeError as error:
                if offset >= error.log_start_offset:
                    raise
                offset = error.log_start_offset
                continue
            if not fetch.data:
                break
            count = 0
            for batch in fetch.batches():
                header = batch.header
                count += header.record_count
                if header.next_offset <= offset or self.leaves_out(batch):
                    continue
                if header.base_offset >= end:
                    offset = end
                    break
                if header.base_offset >= offset and header.next_offset <= end:
                    messages += batch.records(row_type=self._row_type, ahead=(handle,))
                else:
                    rows = batch.records()
                    self._kept = header.base_offset, header.next_offset, rows
                    messages += self._chosen(rows, offset, end, handle)
                offset = header.next_offset
            else:
                offset = max(offset, fetch.next_offset)
            if count:
                self._record_bytes += (len(fetch.data) / count - self._record_bytes) / 4
        return messages

    def leaves_out(self, batch: Batch) -> bool:
        """Whether nothing of a batch is delivered."""
        return batch.header.control

    def _chosen(self, rows: list[Record], first: int, end: int, handle: object) -> Iterable[M_co]:
        start = bisect_left(rows, first, key=_offset_of_row)
        stop = bisect_left(rows, end, key=_offset_of_row)
        chosen = [(handle, *row) for row in rows[start:stop]]
        return map(_new_tuple, repeat(self._row_type), chosen)

    def next_offset(self, offset: int) -> int:
        """The first offset from ``offset`` on that the log has; its end where there is none."""
        try:
            fetch = self._log.read(offset, max_bytes=1)
        except OffsetOutOfRangeError as error:
            if offset >= error.log_start_offset:
                raise
            return error.log_start_offset
        for batch in fetch.batches():
            return max(offset, batch.header.base_offset)
        return fetch.log_end_offset


class MessageReader(Reader[Message]):
    """Reads a queue's log."""

    def __init__(self, log: PartitionLog) -> None:
        super().__init__(log, Message)

    def size(self, first: int, length: int) -> int:
        """The bytes of the bodies of such messages."""
        return sum(len(message.body) for message in self.read(first, length, None))


# Judging ------------------------------------------------------------------------------------


class Verdicts(NamedTuple):
    """Which messages may not be delivered now; offsets, ascending."""

    lost: Sequence[int]
    """Transient ones from before the machine was restarted."""
    held: dict[int, int]
    """Those that are not due, and when they are."""
    expired: Sequence[int]


def judge(
    messages: Sequence[Message], *, restart_end: int, ttl_ms: int | None, now_ms: int
) -> Verdicts | None:
    """What is to be said of messages; None, as nearly always: that all may be delivered."""
    names = set(map(_name_of, chain.from_iterable(map(_headers_of, messages))))
    if names.isdisjoint(_SPECIAL):
        if ttl_ms is None or now_ms <= min(map(_timestamp_of, messages), default=now_ms) + ttl_ms:
            return None
        limit = now_ms - ttl_ms
        return Verdicts((), {}, [m.offset for m in messages if m.timestamp_ms < limit])
    lost = []
    held = {}
    expired = []
    for message in messages:
        properties = message.properties
        due = due_time(properties, message.timestamp_ms)
        if properties.delivery_mode == _TRANSIENT and message.offset < restart_end:
            lost.append(message.offset)
        elif due is not None and due > now_ms:
            held[message.offset] = due
        elif now_ms > expiry(properties, message.timestamp_ms, ttl_ms):
            expired.append(message.offset)
    return Verdicts(lost, held, expired) if lost or held or expired else None


def due_time(properties: Properties, timestamp_ms: int) -> int | None:
    """When a message may be delivered, in milliseconds since 1970; None: at any time."""
    if properties.deliver_at_ms is not None:
        return properties.deliver_at_ms
    return None if properties.delay_ms is None else timestamp_ms + properties.delay_ms


def expiry(properties: Properties, timestamp_ms: int, ttl_ms: int | None) -> float:
    """The last millisecond in which a message may be delivered. Its time to live is the queue's or
    its own, whichever is shorter, and begins when it is due."""
    times = [time for time in (properties.expiration, ttl_ms) if time is not None]
    if not times:
        return float("inf")
    return max(timestamp_ms, due_time(properties, timestamp_ms) or 0) + min(times)
