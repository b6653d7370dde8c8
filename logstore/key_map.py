"""What a pass of compaction remembers of the dirty part: keys, and where records are superseded.

The second part is what makes copying cheap. Reading the keys tells not only which record of a key
is the last, but also, each time a key comes again, where the one before it lies. So a batch that no
such place falls into stays as it is, and need not be opened a second time; the same for a segment,
which is not even read; and where each place is known to the offset, no key of a batch that is
opened is looked up again. What is looked up and put in goes through C (``map``, ``zip``,
``dict.update``) a batch at a time: a call for each record would cost more than finding its key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

__all__ = ["KeyMap"]

_SUPERSEDED = 1
_LOOK = 2


class KeyMap:
    """For each key the offset of its last record, in bounded memory.

    A long key is stored as a digest of 16 bytes; that two of them agree by chance is less likely
    than that the machine miscounts. ``first_offset`` and ``last_offset`` bound what is put in.
    """

    _ENTRY_BYTES = 176
    """What an entry costs: its part of the table (even just after that has grown), the key as an
    object and the offset as another. Measured with ``tracemalloc``, rounded up."""
    _LONGEST_KEY = 32
    _MARKS_PART = 16
    """The marks get this part of the memory at most."""

    def __init__(self, memory_bytes: int, *, first_offset: int, last_offset: int) -> None:
        span = max(1, last_offset + 1 - first_offset)
        most = max(1, memory_bytes // self._MARKS_PART)
        self._shift = max(0, (-(-span // most) - 1).bit_length())
        """Each mark stands for two to this power of offsets: for one if there is memory enough."""
        self._marks = bytearray(((span - 1) >> self._shift) + 1)
        """Which offsets hold a record that will go, or something else that is to be looked at."""
        self._first_offset = first_offset
        self.last_offset = last_offset
        """No record that is put in, and nothing that is marked, may lie behind it."""
        self.capacity = max(1, (memory_bytes - len(self._marks)) // self._ENTRY_BYTES)
        self._offsets: dict[bytes | None, int] = {}
        self.end_offset = -1
        """The offset behind the last record that was put in; -1 while there is none."""

    def __len__(self) -> int:
        return len(self._offsets)

    def put(self, key: bytes, offset: int) -> bool:
        """Remember the record of ``key`` at ``offset``; False when there is no room for it."""
        if len(key) > self._LONGEST_KEY:
            key = _digest(key)
        before = self._offsets.get(key)
        if before is not None:
            place = (before - self._first_offset) >> self._shift
            self._marks[place] = self._marks[place] or _SUPERSEDED
        elif len(self._offsets) >= self.capacity:
            return False
        self._offsets[key] = offset
        self.end_offset = offset + 1
        return True

    def put_all(self, keys: Sequence[bytes | None], offsets: Sequence[int]) -> bool:
        """Remember the records of a batch, those of a null key aside; False when there is no room
        for one of them, and what stands before it has been put in then."""
        table = self._offsets
        if len(table) + len(keys) > self.capacity or not self._as_they_are(keys):
            return all(
                self.put(key, offset)
                for key, offset in zip(keys, offsets, strict=True)
                if key is not None
            )
        if not keys:
            return True
        marks, first, shift = self._marks, self._first_offset, self._shift
        for before in map(table.get, keys):
            if before is not None and not marks[place := (before - first) >> shift]:
                marks[place] = _SUPERSEDED
        size = len(table)
        table.update(zip(keys, offsets, strict=True))
        if len(table) - size < len(keys) and len(set(keys)) < len(keys):
            # A key comes twice in the batch itself.
            for key, offset in zip(keys, offsets, strict=True):
                if table[key] != offset and not marks[place := (offset - first) >> shift]:
                    marks[place] = _SUPERSEDED
        self.end_offset = offsets[-1] + 1
        return True

    def mark(self, first: int, last: int) -> None:
        """Have a look at what lies between two offsets, these included, when it is copied."""
        first = max(0, first - self._first_offset) >> self._shift
        last = (last - self._first_offset) >> self._shift
        self._marks[first : last + 1] = bytes((_LOOK,)) * (last + 1 - first)

    def all_stay(self, first: int, last: int) -> bool:
        """Whether every record from ``first`` to ``last`` is known to stay as it is."""
        if first < self._first_offset or last >= self.end_offset:
            return False
        first = (first - self._first_offset) >> self._shift
        last = (last - self._first_offset) >> self._shift
        return not self._marks[first : last + 1].strip(b"\0")

    def superseded(self, first: int, last: int) -> bytearray | None:
        """For each offset from ``first`` to ``last`` whether its record has a later one of the
        same key; None where that is not known exactly, and :meth:`last_offsets` has to be asked."""
        if self._shift or first < self._first_offset or last >= self.end_offset:
            return None
        marks = self._marks[first - self._first_offset : last + 1 - self._first_offset]
        return None if _LOOK in marks else marks

    def last_offsets(self, keys: Sequence[bytes | None]) -> list[int | None]:
        """For each key the offset of its last record, if one has been put in."""
        if not self._as_they_are(keys):
            longest = self._LONGEST_KEY
            keys = [_digest(key) if key is not None and len(key) > longest else key for key in keys]
        return list(map(self._offsets.get, keys))

    def _as_they_are(self, keys: Sequence[bytes | None]) -> bool:
        """Whether none of them is null, or so long that a digest stands for it."""
        return None not in keys and max(map(len, keys), default=0) <= self._LONGEST_KEY  # type: ignore[arg-type]


def _digest(key: bytes) -> bytes:
    return hashlib.blake2b(key, digest_size=16).digest()
