"""The errors of the format layer, and the root of all of logstore's errors.

The tree (``logstore.errors`` adds what stands above the format)::

    LogstoreError                 every error that logstore raises on purpose
    ├── FormatError               bytes are not what Kafka's format says; names the place
    │   ├── TruncatedError        the bytes end before the structure does (a torn tail)
    │   ├── ChecksumError         a CRC does not match
    │   ├── LimitError            a length is beyond the stated bound; nothing was allocated
    │   └── UnsupportedFormatError  well-formed, but newer than (or unknown to) this version
    └── InvalidInputError         a caller's argument cannot be stored or is out of bounds

An ``OSError`` passes untouched: the operating system's own words are the best there are.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "ChecksumError",
    "FormatError",
    "InvalidInputError",
    "LimitError",
    "LogstoreError",
    "TruncatedError",
    "UnsupportedFormatError",
]


class LogstoreError(Exception):
    """The root of every error that logstore raises on purpose."""


class FormatError(LogstoreError):
    """Bytes are not what the format says they should be.

    ``path`` and ``position`` (a byte in the file, or in the buffer where there is no file) say
    where; ``expected`` and ``found`` say what. A codec that sees only a buffer leaves ``path``
    empty, and whoever knows the file fills both in with :meth:`at`.
    """

    def __init__(
        self,
        problem: str,
        *,
        path: str | None = None,
        position: int | None = None,
        expected: Any = None,
        found: Any = None,
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.path = path
        self.position = position
        self.expected = expected
        self.found = found

    def at(self, path: str | None, position: int) -> FormatError:
        """The same error, its place given in file ``path``, ``position`` bytes further on."""
        self.path = path if self.path is None else self.path
        self.position = position + (self.position or 0)
        return self

    @property
    def reason(self) -> str:
        """The problem with what was expected and found, without the place."""
        text = self.problem
        if self.expected is not None:
            text += f": expected {self.expected}, found {self.found}"
        elif self.found is not None:
            text += f": found {self.found}"
        return text

    def __str__(self) -> str:
        place = self.path or ""
        if self.position is not None:
            place += f" at byte {self.position}" if place else f"at byte {self.position}"
        return f"{place}: {self.reason}" if place else self.reason


class TruncatedError(FormatError):
    """The bytes end before the structure that began in them does."""


class ChecksumError(FormatError):
    """A CRC does not match the bytes that it covers."""


class LimitError(FormatError):
    """A length read from disk, or a decompressed size, is beyond the stated bound."""


class UnsupportedFormatError(FormatError):
    """A version, codec or type that this version of logstore does not know."""


class InvalidInputError(LogstoreError, ValueError):
    """An argument cannot be stored, or lies outside its bounds; nothing was changed."""
