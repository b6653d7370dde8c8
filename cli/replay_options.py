"""What ``logstore replay`` is asked for, and what that means to the library."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import click

from logstore.cli.formats import parse_format
from logstore.cli.options import any_store_option, json_option
from logstore.cli.parsing import parse_header
from logstore.cli.read import parse_offset
from logstore.clock import SystemClock
from logstore.errors import InvalidInputError
from logstore.fetcher import ConsumerRecord
from logstore.json_records import record_line
from logstore.replay.expressions import compile_expression
from logstore.replay.filters import ANY, Filters, HeaderFilter, Test
from logstore.replay.pace import OriginalPace, Pace, RatePace, parse_rate, parse_speed
from logstore.replay.registry import SourceOptions, open_source
from logstore.replay.source import Range, Source
from logstore.replay.user_code import load_function
from logstore.segments.compression import Codec
from logstore.segments.files import DiskFiles
from logstore.times import parse_duration, parse_time

__all__ = ["Options", "formatted", "replay_options"]

_Command = Callable[..., Any]


@dataclass(frozen=True)
class Options:
    """The command line, option by option."""

    store: str | None
    offset: str | None
    end_offset: int | None
    last: int | None
    since: str | None
    until: str | None
    where: tuple[str, ...]
    keys: tuple[str, ...]
    key_glob: str | None
    key_grep: str | None
    grep: str | None
    headers: tuple[str, ...]
    limit: int | None
    speed: str | None
    rate: str | None
    max_pause: str | None
    to: str | None
    to_store: str | None
    partitions: str
    timestamps: str
    compression: str | None
    drop_headers: tuple[str, ...]
    add_headers: tuple[str, ...]
    resume: str | None
    save_every: int | None
    dry_run: bool
    folds: tuple[str, ...]
    bisect: str | None
    bisect_cmd: str | None
    context: int
    debug: bool
    diff: bool
    by: str
    compare: str | None
    as_json: bool
    pattern: str | None

    def now_ms(self) -> int:
        """What ages count back from."""
        return time.time_ns() // 1_000_000

    def wanted(self) -> Range:
        """The range; raises InvalidInputError."""
        offset, last = None, self.last
        if self.offset is not None:
            try:
                start = parse_offset(self.offset)
            except ValueError as error:
                raise InvalidInputError(str(error)) from None
            if start.kind == "latest":
                raise InvalidInputError("behind the latest offset there is nothing to replay")
            if start.kind == "last" and last is not None:
                raise InvalidInputError("offset and last exclude each other")
            offset = start.number if start.kind == "offset" else None
            last = start.number if start.kind == "last" else last
        now = self.now_ms()
        return Range(
            offset,
            self.end_offset,
            None if self.since is None else parse_time(self.since, now),
            None if self.until is None else parse_time(self.until, now),
            last,
        ).checked()

    def filters(self) -> Filters:
        """What records have to be; raises InvalidInputError."""
        now = self.now_ms()
        return Filters(
            [compile_expression(text, now_ms=now) for text in self.where],
            [os.fsencode(key) for key in self.keys],
            self.key_glob,
            [_header_filter(text) for text in self.headers],
            self.grep,
            self.key_grep,
        )

    def test(self) -> Test | None:
        """The test of that."""
        return self.filters().test()

    def pace(self) -> Pace | None:
        """The pace; None is as fast as possible. Raises InvalidInputError."""
        longest = None if self.max_pause is None else parse_duration(self.max_pause)
        if self.rate is not None:
            if self.speed is not None or longest is not None:
                raise InvalidInputError("--rate excludes --speed and --max-pause")
            return RatePace(parse_rate(self.rate))
        if self.speed is None:
            if longest is not None:
                raise InvalidInputError("--max-pause makes sense with --speed only")
            return None
        return OriginalPace(speed=parse_speed(self.speed), longest_pause_ms=longest)

    def codec(self) -> Codec | None:
        """How batches are compressed anew."""
        return None if self.compression is None else Codec.named(self.compression)

    def form(self, default: Callable[[ConsumerRecord], bytes]) -> Callable[[ConsumerRecord], bytes]:
        """What becomes of a record on its way to lines; raises InvalidInputError."""
        if self.as_json:
            return record_line
        return default if self.pattern is None else formatted(self.pattern)

    def fold(self) -> Callable[..., Any] | None:
        """The fold, if one is named; raises what loading it raises."""
        if len(self.folds) > 1:
            raise InvalidInputError("several folds make sense with --diff only")
        return load_function(self.folds[0]) if self.folds else None

    def open_source(self, text: str, *, again: bool) -> contextlib.closing[Source]:
        """The source that ``text`` names; raises what opening it raises."""
        options = SourceOptions(
            self.store, self.wanted(), again, _standard_input, DiskFiles(), SystemClock()
        )
        return contextlib.closing(open_source(text, options))

    def given(self, *names: str) -> list[str]:
        """Which of these options were given (their values are neither None nor empty)."""
        return [name for name in names if getattr(self, name) not in (None, (), False)]


def _standard_input() -> BinaryIO:
    if sys.stdin is None:
        raise InvalidInputError("standard input is closed")
    return sys.stdin.buffer


def _header_filter(text: str) -> HeaderFilter:
    name, equals, _ = text.partition("=")
    if not equals:
        return HeaderFilter(name, ANY)
    return HeaderFilter(*parse_header(os.fsencode(text)))


def formatted(pattern: str) -> Callable[[ConsumerRecord], bytes]:
    """What a pattern of ``--format`` makes of a record; raises InvalidInputError."""
    by_topic: dict[str, Callable[[int, Any], bytes]] = {}

    def formatter(topic: str) -> Callable[[int, Any], bytes]:
        # A record of a source has all that the letters ask for, and its topic and partition.
        found: Callable[[int, Any], bytes] = parse_format(pattern, topic)
        return by_topic.setdefault(topic, found)

    formatter("")  # an error is told before anything is opened

    def form(record: ConsumerRecord) -> bytes:
        known = by_topic.get(record.topic) or formatter(record.topic)
        return known(record.partition, record)

    return form


def _option(*names: str, **settings: Any) -> Callable[[_Command], _Command]:
    return click.option(*names, **settings)


_NUMBER = click.IntRange(min=0)

_RANGE = (
    _option(
        "--offset",
        metavar="N",
        help="Begin at offset N, or with -N at the last N of each partition.",
    ),
    _option("--end-offset", type=_NUMBER, metavar="N", help="End in front of offset N."),
    _option("--last", type=_NUMBER, metavar="N", help="Only the last N of each partition."),
    _option("--since", metavar="TIME", help="Begin at the first record of TIME or later."),
    _option("--until", metavar="TIME", help="End in front of the first of TIME or later."),
    _option("--max", "limit", type=_NUMBER, metavar="N", help="Stop after N records."),
)
_FILTERS = (
    _option(
        "--where",
        multiple=True,
        metavar="EXPR",
        help="Only records for which EXPR is true, as in: key.startswith('a') and json.n > 5.",
    ),
    _option("--key", "keys", multiple=True, metavar="KEY", help="Only records with this key."),
    _option("--key-glob", metavar="GLOB", help="Only records whose key is as GLOB says: order-*."),
    _option("--key-grep", metavar="REGEX", help="Only records in whose key REGEX is found."),
    _option("--grep", metavar="REGEX", help="Only records in whose value REGEX is found."),
    _option(
        "--with-header",
        "headers",
        multiple=True,
        metavar="NAME[=VALUE]",
        help="Only records with this header.",
    ),
)
_PACE = (
    _option(
        "--speed",
        metavar="FACTOR",
        help="As the timestamps say: 1x is the original pace, 10x ten times as fast.",
    ),
    _option("--rate", metavar="N/s", help="So many records a second (or /m, /h)."),
    _option("--max-pause", metavar="TIME", help="With --speed: make longer pauses so long: 10s."),
)
_SINKS = (
    _option(
        "--to",
        metavar="SINK",
        help="topic:NAME, queue:NAME, exchange:NAME[/ROUTING_KEY], file:PATH (JSON lines), "
        "call:MODULE:FUNCTION, or command:COMMAND; without it, standard output.",
    ),
    _option(
        "--to-store",
        type=click.Path(),
        metavar="DIR",
        help="The store of --to topic:, queue: and exchange:.",
    ),
    _option(
        "--partitions",
        default="same",
        show_default=True,
        metavar="MAP",
        help="Where records go in a topic: same, key, 3 (all to partition 3), or 0:2,1:0.",
    ),
    _option(
        "--timestamps",
        type=click.Choice(["original", "now"]),
        default="original",
        show_default=True,
        help="What timestamps records get in a topic.",
    ),
    _option(
        "--compression",
        type=click.Choice([codec.label for codec in Codec]),
        help="Compress batches for a topic anew.",
    ),
    _option(
        "--drop-header",
        "drop_headers",
        multiple=True,
        metavar="GLOB",
        help="Leave out headers of this name.",
    ),
    _option(
        "--add-header",
        "add_headers",
        multiple=True,
        metavar="NAME=VALUE",
        help="Add a header to each record.",
    ),
    _option(
        "--resume",
        type=click.Path(dir_okay=False),
        metavar="FILE",
        help="Keep in FILE how far it has come, and go on from there.",
    ),
    _option(
        "--save-every",
        type=click.IntRange(min=1),
        metavar="N",
        help="With --resume: save after each N records, not only each second.",
    ),
    _option("--dry-run", is_flag=True, help="Say what would be replayed, and deliver nothing."),
)
_FOLDS = (
    _option(
        "--fold",
        "folds",
        multiple=True,
        metavar="MODULE:FUNCTION",
        help="Fold records into a state: function(state, record) -> state, None first. Without "
        "--bisect, --diff or --debug the last state is printed.",
    ),
    _option(
        "--bisect",
        metavar="EXPR",
        help="Find the first record behind which EXPR about the state is true.",
    ),
    _option(
        "--bisect-cmd",
        metavar="COMMAND",
        help="Find the first record with which COMMAND, fed with all up to it as JSON lines, ends "
        "with a status from 1 to 124.",
    ),
    _option(
        "--context",
        type=_NUMBER,
        default=3,
        show_default=True,
        metavar="N",
        help="Records to show on either side of what was found.",
    ),
    _option("--debug", is_flag=True, help="Step through the records, forwards and backwards."),
    _option(
        "--diff", is_flag=True, help="Compare two sources, or two folds (--fold twice) of one."
    ),
    _option(
        "--by",
        type=click.Choice(["offset", "key"]),
        default="offset",
        show_default=True,
        help="With --diff: what belongs together.",
    ),
    _option(
        "--compare",
        metavar="FIELDS",
        help="With --diff: what has to be the same, of timestamp,key,value,headers.",
    ),
)
_OUTPUT = (
    json_option,
    _option(
        "--format",
        "pattern",
        metavar="FORMAT",
        help="Print each record by a pattern, as read --format does.",
    ),
)


def replay_options(command: _Command) -> _Command:
    """Give the command all of its options; they arrive as the fields of :class:`Options`."""
    for option in reversed(
        (any_store_option, *_RANGE, *_FILTERS, *_PACE, *_SINKS, *_FOLDS, *_OUTPUT)
    ):
        command = option(command)
    return command
