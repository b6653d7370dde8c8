"""``logstore append``: lines become records."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, Literal

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

import logstore
from logstore.cli.lines import LineBatch, LineReader
from logstore.cli.options import store_option
from logstore.cli.output import FAILED, complain, count_of
from logstore.cli.parsing import LineParser, Parser, json_parser, line_parser, parse_header
from logstore.cli.start import INTERRUPTED
from logstore.errors import (
    InvalidInputError,
    LogstoreError,
    TopicExistsError,
    UnknownTopicError,
)
from logstore.partitioner import partition_for_key
from logstore.segments.batch import HEADER_BYTES
from logstore.segments.compression import Codec
from logstore.segments.record import Header, Record
from logstore.store import Store
from logstore.topic import Topic

__all__ = ["append"]

_BATCH_BYTES = 512 << 10
_BATCH_LINES = 5_000
_RECORD_OVERHEAD_BYTES = 24
"""What a record without headers takes beside its key and value, at most."""

_ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "0": "\0", "\\": "\\"}

Acks = Literal[0, 1, "all"]
_ACKS: dict[str, Acks] = {"0": 0, "1": 1, "all": "all"}


def _separator(ctx: click.Context, param: click.Parameter, value: str | None) -> bytes | None:
    """The bytes of ``--key-separator``, in which ``\\t`` and its like stand for one byte."""
    if value is None:
        return None
    parts = []
    characters = iter(value)
    for character in characters:
        if character == "\\" and (escaped := next(characters, "\\")) in _ESCAPES:
            parts.append(_ESCAPES[escaped])
        elif character == "\\":
            parts.append("\\" + escaped)
        else:
            parts.append(character)
    if not parts:
        raise click.BadParameter("an empty separator separates nothing", ctx, param)
    return os.fsencode("".join(parts))


def _fixed_headers(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> list[Header]:
    try:
        return [parse_header(os.fsencode(value)) for value in values]
    except InvalidInputError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def _size_of(headers: list[Header]) -> int:
    """What headers take in a record, at most."""
    return sum(10 + len(os.fsencode(name)) + len(value or b"") for name, value in headers)


@click.command(short_help="Append lines to a topic.")
@click.argument("topic")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True), default="-")
@store_option
@click.option(
    "--key-separator",
    metavar="S",
    callback=_separator,
    help="What stands in a line before the first S is the record's key. \\t is a tab.",
)
@click.option(
    "--header",
    "fixed",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_fixed_headers,
    help="A header that every record gets; may be repeated. NAME alone: its value is null.",
)
@click.option(
    "--headers",
    is_flag=True,
    help="Each line begins with its headers, as name=value,name=value, and a tab.",
)
@click.option(
    "--partition",
    type=click.IntRange(min=0),
    metavar="N",
    help="Append everything to this partition.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Each line is a JSON object, as read --json prints it.",
)
@click.option(
    "--compression",
    type=click.Choice([codec.label for codec in Codec]),
    default=Codec.NONE.label,
    show_default=True,
    help="How to compress each batch of records.",
)
@click.option(
    "--acks",
    type=click.Choice(list(_ACKS)),
    default="all",
    show_default=True,
    help="What to wait for: 0 and 1 the operating system, all stable storage.",
)
@click.pass_context
def append(
    ctx: click.Context,
    topic: str,
    file: str,
    store: str,
    key_separator: bytes | None,
    fixed: list[Header],
    headers: bool,
    partition: int | None,
    as_json: bool,
    compression: str,
    acks: str,
) -> None:
    """Append each line of FILE, or of standard input, to TOPIC as one record.

    Lines end with a line feed, which is not stored; every other byte is. A topic that is not there
    is created with one partition, and so is the store. With several partitions, records with a
    key go where Kafka's own clients would send them, others to each partition in turn, batch by
    batch.

    \b
    Examples:
      logstore append orders events.log
      logstore append orders --key-separator : --compression zstd < events.log
      logstore append orders --json events.json
    """
    if as_json and (headers or key_separator is not None):
        raise click.UsageError("--json excludes --headers and --key-separator", ctx)
    parser: Parser | None = None
    if as_json:
        parser = json_parser
    elif headers or key_separator is not None:
        parser = line_parser(key_separator, headers=headers)
    with _opened(file) as source, logstore.open(store, create=True) as opened:
        appender = _Appender(
            _topic(opened, topic, partition),
            LineParser(parser, fixed),
            partition,
            _ACKS[acks],
            Codec.named(compression),
        )
        reader = LineReader(
            source,
            batch_bytes=appender.batch_bytes,
            batch_lines=_BATCH_LINES,
            overhead_bytes=_RECORD_OVERHEAD_BYTES + _size_of(fixed),
        )
        started = time.monotonic()
        try:
            with _progress(source) as advance:
                for batch in reader.batches():
                    appender.append(batch)
                    advance(reader.bytes_read)
        except KeyboardInterrupt:
            complain(f"interrupted: {count_of(appender.records, 'record')} appended before that")
            ctx.exit(INTERRUPTED)
        except (LogstoreError, OSError) as error:
            if isinstance(error, OSError) and error.filename:
                text = f"{os.fsdecode(error.filename)}: {error.strerror}"
            else:
                text = str(error)
            done = count_of(appender.records, "record")
            complain(f"{appender.place or reader.place}: {text} ({done} appended before that)")
            ctx.exit(FAILED)
    seconds = time.monotonic() - started
    rate = appender.records / seconds if seconds else 0
    click.echo(
        f"{count_of(appender.records, 'record')}, {count_of(reader.bytes_read, 'byte')} "
        f"in {seconds:.2f} s: {rate:,.0f} records/s",
        err=True,
    )


@contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    if file != "-":
        with open(file, "rb", buffering=0) as stream:
            yield stream
        return
    if sys.stdin is None:
        raise click.ClickException("standard input is closed")
    yield sys.stdin.buffer


def _topic(store: Store, name: str, partition: int | None) -> Topic:
    """The topic, which is created where it is not there; raises UnknownTopicError where it has not,
    or would not have, this partition."""
    try:
        topic = store.topic(name)
    except UnknownTopicError as error:
        if partition:
            raise UnknownTopicError(f"{error}; a new one has no partition {partition}") from None
        try:
            topic = store.create_topic(name)
        except TopicExistsError:  # another process was as quick
            topic = store.topic(name)
    if partition is not None:
        topic.partition(partition)
    return topic


@contextmanager
def _progress(source: BinaryIO) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, if that is a terminal and nobody types the lines into it."""
    if not sys.stderr.isatty() or source.isatty():
        yield lambda done: None
        return
    try:
        size: int | None = os.fstat(source.fileno()).st_size or None
    except OSError:
        size = None
    with Progress(
        TextColumn("appending"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as progress:
        task = progress.add_task("", total=size)
        yield lambda done: progress.update(task, completed=done)


class _Appender:
    """Turns batches of lines into batches of records, and keeps count."""

    def __init__(
        self, topic: Topic, parser: LineParser, partition: int | None, acks: Acks, codec: Codec
    ) -> None:
        self._topic = topic
        self._parser = parser
        self._partition = partition
        self._acks = acks
        self._codec = codec
        self._turn = 0
        """The partition of the next records that have no key."""
        self.records = 0
        """Records appended so far."""
        self.place = ""
        """The lines that are being appended; empty while none are."""
        most = topic.config.max_message_bytes
        # Compression can add a little to what cannot be compressed.
        self.batch_bytes = min(_BATCH_BYTES, max(1, most - most // 16 - HEADER_BYTES))
        """Bytes that fit into a batch; a line that is longer has one of its own."""

    def append(self, batch: LineBatch) -> None:
        """Append the lines of a batch."""
        first, last = batch.first_line, batch.first_line + len(batch.lines) - 1
        try:
            parsed = self._parser.parse(batch.lines)
        except InvalidInputError:
            self.place = f"line {first + self._parser.index}"
            raise
        by_partition = self._by_partition(parsed, first)
        self.place = f"line {first}" if first == last else f"lines {first} to {last}"
        for partition, records in by_partition.items():
            log = self._topic.partition(partition)
            log.append(records, acks=self._acks, codec=self._codec)
            self.records += len(records)
        self.place = ""

    def _by_partition(
        self, parsed: list[tuple[int | None, Record]], first_line: int
    ) -> dict[int, list[Record]]:
        count = self._topic.partition_count
        if self._partition is not None:
            return {self._partition: [record for _, record in parsed]}
        turn = self._turn
        took_turn = False
        found: dict[int, list[Record]] = {}
        for index, (partition, record) in enumerate(parsed):
            if partition is not None and partition not in found:
                self.place = f"line {first_line + index}"
                self._topic.partition(partition)  # raises for one that is not there
            elif partition is None:
                if record.key is not None:
                    partition = partition_for_key(record.key, count) if count > 1 else 0
                else:
                    partition = turn
                    took_turn = True
            found.setdefault(partition, []).append(record)
        if took_turn:
            self._turn = (turn + 1) % count
        return found
