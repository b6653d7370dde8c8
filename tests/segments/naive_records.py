"""Records decoded straight from the format's description: what the fast decoder is held against."""

from __future__ import annotations

from logstore.segments.record import Record


class NotARecordError(Exception):
    """The naive decoder's only complaint."""


def naive_decode(data: bytes, count: int, base_offset: int, base_timestamp: int) -> list[Record]:
    """The format's description, field after field, with no thought of speed."""
    rest = data

    def take(size: int) -> bytes:
        nonlocal rest
        if not 0 <= size <= len(rest):
            raise NotARecordError
        taken, rest = rest[:size], rest[size:]
        return taken

    def number() -> int:
        groups = [take(1)[0]]
        while groups[-1] >= 0x80:
            groups.append(take(1)[0])
        folded = sum((group & 0x7F) << 7 * index for index, group in enumerate(groups))
        if len(groups) > 10 or folded >= 1 << 64:
            raise NotARecordError
        return folded // 2 if folded % 2 == 0 else -(folded + 1) // 2

    def blob() -> bytes | None:
        size = number()
        return None if size == -1 else take(size)

    records = []
    for _ in range(count):
        size = number()
        end = len(rest) - size
        take(1)  # attributes
        timestamp, offset = base_timestamp + number(), base_offset + number()
        key, value = blob(), blob()
        headers = []
        for _ in range(number()):
            name = take(number())
            headers.append((name.decode("utf-8", "surrogateescape"), blob()))
        if len(rest) != end:
            raise NotARecordError
        records.append(Record(offset, timestamp, key, value, tuple(headers)))
    if rest:
        raise NotARecordError
    return records
