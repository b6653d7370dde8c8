"""A ledger's rows in memory: of a store that is only read, and whose live environment is gone."""

from __future__ import annotations

import bisect
from collections.abc import Iterator

__all__ = ["MemoryRows"]


class MemoryRows:
    """An ordered table."""

    def __init__(self, content: dict[bytes, bytes] | None = None) -> None:
        """``content`` is changed in place."""
        self.content = {} if content is None else content
        self._keys = sorted(self.content)

    def get(self, key: bytes) -> bytes | None:
        """The value of a key."""
        return self.content.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        """Set the value of a key."""
        if key not in self.content:
            bisect.insort(self._keys, key)
        self.content[key] = value

    def delete(self, key: bytes) -> bool:
        """Remove a key, and say whether it was there."""
        if self.content.pop(key, None) is None:
            return False
        del self._keys[bisect.bisect_left(self._keys, key)]
        return True

    def items(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The rows whose keys begin so, ascending."""
        for key in self._keys[bisect.bisect_left(self._keys, prefix) :]:
            if not key.startswith(prefix):
                return
            yield key, self.content[key]

    def before(self, key: bytes, prefix: bytes) -> tuple[bytes, bytes] | None:
        """The last row in front of ``key`` whose key begins with ``prefix``."""
        place = bisect.bisect_left(self._keys, key)
        found = self._keys[place - 1] if place else b""
        return (found, self.content[found]) if place and found.startswith(prefix) else None
