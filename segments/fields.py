"""Fields of fixed size that stand one behind the other, and their names: for whoever decodes them,
and for whoever shows which bytes are what (``logstore.segments.annotate``).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Bits", "FieldPlace", "Fields"]


class FieldPlace(NamedTuple):
    """A field, and where it stands among the others."""

    name: str
    code: str
    """The struct module's character for its type."""
    position: int
    """Bytes from the first field on."""
    size: int
    """In bytes."""


class Fields:
    """Big-endian fields as ``(type, name)``, in the order in which they are stored.

    A type is the struct module's character; the names are those of ``docs/format.md``.
    """

    def __init__(self, *fields: tuple[str, str]) -> None:
        self.struct = struct.Struct(">" + "".join(code for code, _ in fields))
        """Packs and unpacks all of them."""
        self.places: list[FieldPlace] = []
        position = 0
        for code, name in fields:
            size = struct.calcsize(">" + code)
            self.places.append(FieldPlace(name, code, position, size))
            position += size

    def __iter__(self) -> Iterator[FieldPlace]:
        return iter(self.places)


@dataclass(frozen=True)
class Bits:
    """Neighbouring bits of a number, which mean one thing together."""

    first: int
    """The lowest one; bit 0 is the one that counts 1."""
    count: int
    name: str

    @property
    def mask(self) -> int:
        """These bits, and no others."""
        return ((1 << self.count) - 1) << self.first

    def of(self, number: int) -> int:
        """What these bits of ``number`` say."""
        return (number & self.mask) >> self.first
