"""``logstore find``: records are searched for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click
from rich.text import Text

from logstore.cli.options import any_store_option, json_option
from logstore.cli.output import (
    FAILED,
    WRONG_USE,
    Lines,
    complain,
    json_line,
    printable,
    standard_output,
    time_text,
)
from logstore.cli.replay_options import formatted
from logstore.cli.trouble import or_trouble
from logstore.errors import InvalidInputError, UnknownTopicError
from logstore.fetcher import ConsumerRecord
from logstore.inspect.finding import Finder, Found
from logstore.inspect.json_path import parse_json_test
from logstore.inspect.query import HeaderTest, Query, compiled_pattern
from logstore.inspect.sources import Partition, find_partitions
from logstore.inspect.walking import Trouble
from logstore.json_records import record_line
from logstore.replay.expressions import compile_expression
from logstore.replay.source import Range
from logstore.times import parse_time

__all__ = ["find"]

_NUMBER = click.IntRange(min=0)
_AT_LEAST_ONE = click.IntRange(min=1)


@dataclass(frozen=True)
class _Options:
    """The command line, option by option."""

    value: str | None
    key: str | None
    headers: tuple[str, ...]
    json_paths: tuple[str, ...]
    where: tuple[str, ...]
    fixed: bool
    ignore_case: bool
    invert: bool
    offset: int | None
    end_offset: int | None
    since: str | None
    until: str | None
    isolation: str
    limit: int | None
    before: int | None
    after: int | None
    context: int
    count: bool
    files: bool
    quiet: bool
    as_json: bool
    pattern: str | None
    store: str | None
    patterns_are_options: bool = True
    """Whether no argument is a pattern."""

    @property
    def says_what(self) -> bool:
        """Whether an option says what is looked for, and so no argument has to."""
        given = (self.value, self.key, *self.headers, *self.json_paths, *self.where)
        return any(one is not None for one in given)

    def query(self, now_ms: int) -> Query:
        """What is looked for; raises InvalidInputError."""
        return Query(
            self.value,
            self.key,
            [_header_test(text) for text in self.headers],
            [parse_json_test(text) for text in self.json_paths],
            [compile_expression(text, now_ms=now_ms) for text in self.where],
            fixed=self.fixed,
            ignore_case=self.ignore_case,
            invert=self.invert,
        )

    def finder(self) -> Finder:
        """The search; raises InvalidInputError."""
        now_ms = time.time_ns() // 1_000_000
        since, until = (
            None if text is None else parse_time(text, now_ms) for text in (self.since, self.until)
        )
        wanted = Range(self.offset, self.end_offset, since, until)
        shows_records = not (self.count or self.files or self.quiet)
        before = self.context if self.before is None else self.before
        after = self.context if self.after is None else self.after
        return Finder(
            self.query(now_ms),
            wanted.checked(),
            before if shows_records else 0,
            after if shows_records else 0,
            limit=1 if self.quiet else self.limit,
            once=self.files,
            committed=self.isolation == "read_committed",
            trouble=_tell,
        )


def _header_test(text: str) -> HeaderTest:
    name, equals, pattern = text.partition("=")
    if not name:
        raise InvalidInputError(f"{text!r} is not of the form NAME or NAME=PATTERN")
    return HeaderTest(name, pattern if equals else None)


def _tell(trouble: Trouble) -> None:
    complain(str(trouble))


@click.command(short_help="Search for records by value, key, header, JSON path and time.")
@click.argument("words", metavar="[PATTERN] [SOURCE]...", nargs=-1)
@click.option("--value", "-e", metavar="PATTERN", help="Found in the value: PATTERN as an option.")
@click.option("--key", "-k", metavar="PATTERN", help="Only records in whose key it is found.")
@click.option(
    "--header",
    "headers",
    multiple=True,
    metavar="NAME[=PATTERN]",
    help="Only records with this header, in whose value PATTERN is found; may be repeated.",
)
@click.option(
    "--json-path",
    "json_paths",
    multiple=True,
    metavar="PATH[=VALUE]",
    help="Only records whose value is JSON that has this, as in '$.user.id=42'; may be repeated.",
)
@click.option(
    "--where",
    multiple=True,
    metavar="EXPR",
    help="Only records for which EXPR is true, as in: json.n > 5; may be repeated.",
)
@click.option("--fixed-strings", "-F", "fixed", is_flag=True, help="Patterns are plain texts.")
@click.option("--ignore-case", "-i", is_flag=True, help="Patterns pass over upper and lower case.")
@click.option("--invert-match", "-v", "invert", is_flag=True, help="The records that do not match.")
@click.option("--offset", type=_NUMBER, metavar="N", help="Begin at offset N of each partition.")
@click.option("--end-offset", type=_NUMBER, metavar="N", help="End in front of offset N.")
@click.option(
    "--since", "--from", "since", metavar="TIME", help="Begin at the first record of TIME or later."
)
@click.option(
    "--until", "--to", "until", metavar="TIME", help="End in front of the first of TIME or later."
)
@click.option(
    "--isolation",
    type=click.Choice(["read_uncommitted", "read_committed"]),
    default="read_uncommitted",
    show_default=True,
    help="Whether records of open and aborted transactions are left out.",
)
@click.option(
    "--max-count", "-m", "limit", type=_AT_LEAST_ONE, metavar="N", help="Stop after N matches."
)
@click.option("--before", "-B", type=_NUMBER, metavar="N", help="Show N records before a match.")
@click.option("--after", "-A", type=_NUMBER, metavar="N", help="Show N records after a match.")
@click.option(
    "--context", "-C", type=_NUMBER, default=0, metavar="N", help="Show N records on either side."
)
@click.option("--count", "-c", is_flag=True, help="Print only how many match in each partition.")
@click.option(
    "--files-with-matches", "-l", "files", is_flag=True, help="Print only which segments have any."
)
@click.option("--quiet", "-q", is_flag=True, help="Print nothing; the exit code says it.")
@json_option
@click.option(
    "--format",
    "pattern",
    metavar="FORMAT",
    help="Print each record by a pattern, as read --format does.",
)
@any_store_option
@click.pass_context
def find(ctx: click.Context, /, words: tuple[str, ...], **options: Any) -> None:
    """Search for the records in whose value PATTERN, a regular expression, is found.

    SOURCE is a topic of the store (orders), some partitions of it (orders:0,2), a queue
    (queue:payments), or a path: of a partition, also one of a Kafka broker, a directory of them, a
    store, a segment. Without one all topics of the store are searched. It only reads.

    Where --value, --key, --header, --json-path or --where says what is looked for, all arguments
    are SOURCEs.

    \b
    Examples:
      logstore find 'time.?out' orders --since 2h
      logstore find --key order-17 --json orders
      logstore find --json-path '$.user.id=42' --header type=created orders
      logstore find --where 'json.total > 100' --count

    Exit code: 0 if anything was found, 1 if not, 2 on trouble, damage included.
    """
    chosen = _Options(**options)
    for one, other in (("count", "files"), ("as_json", "pattern")):
        if getattr(chosen, one) and getattr(chosen, other):
            names = {"files": "files-with-matches", "as_json": "json", "pattern": "format"}
            spelled = [f"--{names.get(name, name)}" for name in (one, other)]
            raise click.UsageError(f"{spelled[0]} and {spelled[1]} exclude each other", ctx)
    sources = words
    if not chosen.says_what:
        if not words:
            raise click.UsageError(
                "what is looked for? Give a PATTERN, or --key, --header, --json-path or --where",
                ctx,
            )
        chosen = _Options(**{**options, "value": words[0], "patterns_are_options": False})
        sources = words[1:]
    or_trouble(ctx, _run, sources, chosen)


def _run(ctx: click.Context, sources: tuple[str, ...], options: _Options) -> None:
    finder = options.finder()
    show = _shower(options)
    partitions = _partitions(sources, options)
    found = False
    for partition in partitions:
        if options.count:
            found |= _count(finder, partition, show)
        elif options.files:
            found |= _list_files(finder, partition, show)
        else:
            for one in finder.search(partition):
                found = True
                if not options.quiet:
                    show.record(one)
        if finder.is_over():
            break
    if finder.counters.troubles and not (found and options.quiet):
        ctx.exit(WRONG_USE)
    if not found:
        ctx.exit(FAILED)


def _partitions(sources: tuple[str, ...], options: _Options) -> list[Partition]:
    try:
        return find_partitions(sources, store=options.store)
    except (InvalidInputError, UnknownTopicError) as error:
        if not options.patterns_are_options:
            raise
        raise InvalidInputError(
            f"{error} (beside --key and its like, a pattern of the value is --value PATTERN)"
        ) from None


def _count(finder: Finder, partition: Partition, show: _Shower) -> bool:
    count = sum(1 for _ in finder.search(partition))
    show.count(partition, count)
    return count > 0


def _list_files(finder: Finder, partition: Partition, show: _Shower) -> bool:
    found = False
    for one in finder.search(partition):
        found = True
        show.file(partition, one.path)
    return found


# Showing --------------------------------------------------------------------------------------


class _Shower:
    """One line for each thing, as people read them."""

    def __init__(self, options: _Options) -> None:
        self._lines = Lines()
        self._groups = bool(options.context or options.before or options.after)
        self._first = True
        self._highlight = None
        if options.value and self._lines.console is not None:
            self._highlight = compiled_pattern(
                options.value, fixed=options.fixed, ignore_case=options.ignore_case
            )

    def record(self, found: Found) -> None:
        """A record; a line of dashes where it does not follow on the last one, with context."""
        if self._groups and not found.follows and not self._first:
            self._lines.line("--", "cyan")
        self._first = False
        record = found.record
        place = f"{record.topic}-{record.partition}"
        mark = ":" if found.matched else "-"
        head = f"{place}{mark}{record.offset}{mark} {time_text(record.timestamp)} "
        tail = _tail(record)
        console = self._lines.console
        if console is None:
            self._lines.line(head + tail)
            return
        shown = Text(tail, style="" if found.matched else "dim")
        if self._highlight is not None and found.matched:
            shown.highlight_regex(self._highlight, "bold red")
        console.print(Text(head, style="magenta") + shown, soft_wrap=True)

    def count(self, partition: Partition, count: int) -> None:
        """How many match in a partition."""
        self._lines.line(f"{partition.name}:{count}")

    def file(self, partition: Partition, path: str) -> None:
        """A segment that has a match."""
        self._lines.line(path, "magenta")


def _tail(record: ConsumerRecord) -> str:
    text = f"key={printable(record.key)} value={printable(record.value)}"
    if record.headers:
        pairs = ", ".join(
            f"{printable(name.encode('utf-8', 'surrogateescape'))}: {printable(value)}"
            for name, value in record.headers
        )
        text += f" headers={{{pairs}}}"
    return text


class _JsonShower(_Shower):
    """One object a line."""

    def __init__(self, options: _Options) -> None:
        super().__init__(options)
        self._write = standard_output().write

    def record(self, found: Found) -> None:
        line = record_line(found.record)
        if not found.matched:
            line = line.replace(b'"type":"record"', b'"type":"context"', 1)
        self._write(line)

    def count(self, partition: Partition, count: int) -> None:
        self._write_object("count", partition, count=count)

    def file(self, partition: Partition, path: str) -> None:
        self._write_object("file", partition, file=path)

    def _write_object(self, kind: str, partition: Partition, **fields: object) -> None:
        names = {"topic": partition.topic, "partition": partition.number}
        self._write(json_line({"type": kind, **names, **fields}))


class _FormatShower(_Shower):
    """What a pattern makes of each record."""

    def __init__(self, options: _Options, form: Callable[[ConsumerRecord], bytes]) -> None:
        super().__init__(options)
        self._form = form
        self._write = standard_output().write

    def record(self, found: Found) -> None:
        self._write(self._form(found.record))


def _shower(options: _Options) -> _Shower:
    if options.as_json:
        return _JsonShower(options)
    if options.pattern is not None:
        return _FormatShower(options, formatted(options.pattern))
    return _Shower(options)
