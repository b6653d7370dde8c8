"""What an annotation of bytes is made of: parts, fields, and the places where it has to end.

An annotation is a run of these things in the order of the bytes. The fields of a file leave no gap:
each begins where the one before it ended, and only decompressed bytes are counted from 0 again.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from logstore.segments import varint
from logstore.segments.errors import FormatError, TruncatedError
from logstore.segments.fields import FieldPlace

__all__ = ["Annotated", "Bit", "Cursor", "Ending", "Field", "Part"]


class Part(NamedTuple):
    """The fields that follow belong to this: a batch, a record, an entry."""

    kind: str
    """``batch``, ``message``, ``record``, ``decompressed``, ``header``, ``entry``, ``line`` or
    ``rest``."""
    number: int
    """Counted from 0 among its like: of a record in its batch, of an entry in its file."""
    position: int
    """Where it begins."""
    text: str = ""
    """What there is to say of it as a whole."""
    decompressed: bool = False
    """Whether positions are those of decompressed bytes, and not of the file."""


class Bit(NamedTuple):
    """Some bits of a field that mean one thing."""

    pattern: str
    """The bits of the field, highest first, with dots for those of others."""
    name: str
    value: int
    meaning: str


class Field(NamedTuple):
    """Some bytes, their name, and what they say."""

    position: int
    """Where they begin in the file, or among decompressed bytes."""
    size: int
    """How many there are."""
    raw: bytes
    """The bytes; of bytes that say nothing, the first ones."""
    name: str
    value: int | bytes | None
    """A number, or the bytes as they are; None where they say nothing."""
    meaning: str = ""
    """What the value says here, where that can be said."""
    bits: tuple[Bit, ...] = ()
    """The same bit by bit, where it is made of bits."""
    wrong: bool = False
    """Whether it is damaged for certain."""

    @property
    def number(self) -> int:
        """The value of a field that is a number."""
        assert isinstance(self.value, int)
        return self.value


class Ending(NamedTuple):
    """Here the bytes stop making sense, or end too early."""

    position: int
    reason: str
    """One sentence, with what was expected and found."""
    decompressed: bool = False
    """Whether the position is one of decompressed bytes."""


Annotated = Part | Field | Ending


class Cursor:
    """Takes one field after the other from some bytes.

    What it is asked for and cannot give is a FormatError, at a position of the file (of the bytes,
    where they are decompressed ones), and then it stands where it stood before.
    """

    def __init__(self, data: bytes, start: int = 0) -> None:
        """``start`` is where ``data`` begins in its file."""
        self.data = data
        self.start = start
        self.at = 0
        """Of the next byte, in ``data``."""
        self.end = len(data)
        """No byte from here on is taken."""

    @property
    def position(self) -> int:
        """Of the next byte, in the file."""
        return self.start + self.at

    @property
    def left(self) -> int:
        """Bytes up to the end."""
        return self.end - self.at

    def number(self, place: FieldPlace) -> Field:
        """A number of fixed size."""
        self._demand(place.size, place.name)
        (value,) = struct.unpack_from(">" + place.code, self.data, self.at)
        return self._field(place.size, place.name, value)

    def varint(self, name: str) -> Field:
        """A number of variable size."""
        try:
            value, behind = varint.decode(self.data, self.at)
            if behind > self.end:
                raise TruncatedError("the bytes end inside a varint")
        except FormatError as error:
            error.position = self.position
            error.problem += f", {name}"
            raise
        return self._field(behind - self.at, name, value)

    def take(self, name: str, size: int) -> Field:
        """Bytes as they are."""
        if size < 0:
            raise FormatError(
                f"the length of {name} is negative",
                position=self.position,
                expected="-1 (null) or more",
                found=size,
            )
        self._demand(size, name)
        return self._field(size, name, self.data[self.at : self.at + size])

    def rest(self, name: str = "?") -> Field | None:
        """What is left, as bytes that say nothing; None where nothing is left."""
        if self.left <= 0:
            return None
        field = self.take(name, self.left)
        return field._replace(value=None)

    def _demand(self, size: int, name: str) -> None:
        if size > self.left:
            raise TruncatedError(
                f"the bytes end inside {name}",
                position=self.position,
                expected=f"{size} bytes",
                found=self.left,
            )

    def _field(self, size: int, name: str, value: int | bytes) -> Field:
        raw = self.data[self.at : self.at + size]
        field = Field(self.position, size, raw, name, value)
        self.at += size
        return field
