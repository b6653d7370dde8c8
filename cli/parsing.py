"""How a line of ``append`` becomes a record."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from logstore.errors import InvalidInputError
from logstore.json_records import json_parser
from logstore.segments.record import Header, Record

__all__ = ["LineParser", "Parser", "json_parser", "line_parser", "parse_header"]

Parser = Callable[[bytes], tuple[int | None, Record]]
"""From a line to a record and the partition that the line names, if it names one."""

_ENCODING = ("utf-8", "surrogateescape")


def parse_header(text: bytes) -> Header:
    """``name=value``; a name alone, or ``name=NULL``, is a header whose value is null."""
    name, equals, value = text.partition(b"=")
    if not name:
        raise InvalidInputError(f"{text.decode(*_ENCODING)!r} is not of the form name=value")
    return name.decode(*_ENCODING), value if equals and value != b"NULL" else None


def line_parser(separator: bytes | None, *, headers: bool) -> Parser:
    """The parser of lines of which the part up to ``separator`` is the key; with ``headers`` they
    begin with ``name=value,name=value`` and a tab. Raises InvalidInputError."""

    def parse(line: bytes) -> tuple[int | None, Record]:
        found: Sequence[Header] = ()
        if headers:
            front, tab, line = line.partition(b"\t")
            if not tab:
                raise InvalidInputError("there is no tab behind the headers")
            if front:
                found = [parse_header(part) for part in front.split(b",")]
        if separator is None:
            return None, Record(value=line, headers=found)
        key, there, value = line.partition(separator)
        if there:
            return None, Record(key=key, value=value, headers=found)
        return None, Record(value=line, headers=found)

    return parse


class LineParser:
    """Parses lines, one by one, and knows which one it is at."""

    def __init__(self, parser: Parser | None, headers: Sequence[Header]) -> None:
        """``parser``: None makes a value of each line. ``headers`` go to every record."""
        self._parser = parser
        self._headers = tuple(headers)
        self.index = 0
        """The line that is being parsed, counted from the first one of the batch."""

    def parse(self, lines: Sequence[bytes]) -> list[tuple[int | None, Record]]:
        """A record for each line; raises InvalidInputError."""
        headers, parser = self._headers, self._parser
        if parser is None:
            return [(None, Record(value=line, headers=headers)) for line in lines]
        found = []
        for self.index, line in enumerate(lines):
            partition, record = parser(line)
            if headers:
                record = record._replace(headers=(*record.headers, *headers))
            found.append((partition, record))
        return found
