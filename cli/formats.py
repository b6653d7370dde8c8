"""``--format``: how a record becomes bytes, in kcat's letters."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable

from logstore.errors import InvalidInputError
from logstore.segments.record import Record

__all__ = ["Formatter", "parse_format"]

Formatter = Callable[[int, Record], bytes]
"""From a partition's number and one of its records to bytes."""

_TOKEN = re.compile(r"%(?P<letter>.?)|\\x(?P<hex>[0-9A-Fa-f]{0,2})|\\(?P<escape>.?)", re.DOTALL)
_ESCAPES = {"n": b"\n", "r": b"\r", "t": b"\t", "0": b"\0", "\\": b"\\"}
_SIZE = struct.Struct(">i")


def _size(data: bytes | None) -> int:
    return -1 if data is None else len(data)


def _headers(record: Record) -> bytes:
    return b",".join(
        name.encode("utf-8", "surrogateescape") + b"=" + (b"NULL" if value is None else value)
        for name, value in record.headers
    )


_LETTERS: dict[str, Formatter] = {
    "s": lambda partition, record: record.value or b"",
    "S": lambda partition, record: b"%d" % _size(record.value),
    "R": lambda partition, record: _SIZE.pack(_size(record.value)),
    "k": lambda partition, record: record.key or b"",
    "K": lambda partition, record: b"%d" % _size(record.key),
    "T": lambda partition, record: b"%d" % record.timestamp,
    "h": lambda partition, record: _headers(record),
    "p": lambda partition, record: b"%d" % partition,
    "o": lambda partition, record: b"%d" % record.offset,
}


def parse_format(text: str, topic: str) -> Formatter:
    """What ``text`` says, with the records of ``topic``; raises InvalidInputError for a letter
    or an escape that is none."""
    parts: list[Formatter] = []
    literal: list[bytes] = []
    position = 0
    for match in _TOKEN.finditer(text):
        literal.append(os.fsencode(text[position : match.start()]))
        position = match.end()
        letter, digits, escape = match["letter"], match["hex"], match["escape"]
        if letter == "%":
            literal.append(b"%")
        elif letter == "t":
            literal.append(topic.encode())
        elif letter in _LETTERS:
            parts += [_constant(b"".join(literal)), _LETTERS[letter]]
            literal = []
        elif letter is not None:
            raise InvalidInputError(
                f"the format has no letter %{letter}: there are %t, %p, %o, %T, %k, %K, %s, %S, "
                "%R, %h and %%"
            )
        elif digits:
            literal.append(bytes([int(digits, 16)]))
        elif escape in _ESCAPES:
            literal.append(_ESCAPES[escape])
        else:
            raise InvalidInputError(
                f"the format has no escape {match[0]}: there are \\n, \\r, \\t, \\0, \\xHH and \\\\"
            )
    parts.append(_constant(b"".join(literal) + os.fsencode(text[position:])))
    join = b"".join
    return lambda partition, record: join([part(partition, record) for part in parts])


def _constant(data: bytes) -> Formatter:
    return lambda partition, record: data
