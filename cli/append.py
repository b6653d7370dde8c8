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
from logstore.cli.output import FAILED, INTERRUPTED, complain, count_of
from logstore.errors import LogstoreError, TopicExistsError, UnknownTopicError
from logstore.partitioner import partition_for_key
from logstore.segments.batch import HEADER_BYTES
from logstore.segments.compression import Codec
from logstore.segments.record import Record
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
    compression: str,
    acks: str,
) -> None:
    """Append each line of FILE, or of standard input, to TOPIC as one record.

    Lines end with a line feed, which is not stored; every other byte is. A topic that is not there
    is created with one partition, and so is the store. With several partitions, records with a
    key go where Kafka's own clients would send them, others to each partition in turn, batch by
    batch.
    """
    with _opened(file) as source, logstore.open(store, create=True) as opened:
        appender = _Appender(
            _topic(opened, topic), key_separator, _ACKS[acks], Codec.named(compression)
        )
        reader = LineReader(
            source,
            batch_bytes=appender.batch_bytes,
            batch_lines=_BATCH_LINES,
            overhead_bytes=_RECORD_OVERHEAD_BYTES,
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


def _topic(store: Store, name: str) -> Topic:
    try:
        return store.topic(name)
    except UnknownTopicError:
        try:
            return store.create_topic(name)
        except TopicExistsError:  # another process was as quick
            return store.topic(name)


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

    def __init__(self, topic: Topic, separator: bytes | None, acks: Acks, codec: Codec) -> None:
        self._topic = topic
        self._separator = separator
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
        self.place = f"line {first}" if first == last else f"lines {first} to {last}"
        for partition, records in self._by_partition(batch.lines).items():
            log = self._topic.partition(partition)
            log.append(records, acks=self._acks, codec=self._codec)
            self.records += len(records)
        self.place = ""

    def _by_partition(self, lines: list[bytes]) -> dict[int, list[Record]]:
        records = self._records(lines)
        count = self._topic.partition_count
        if count == 1:
            return {0: records}
        turn = self._turn
        found: dict[int, list[Record]] = {}
        for record in records:
            key = record.key
            partition = turn if key is None else partition_for_key(key, count)
            found.setdefault(partition, []).append(record)
        if any(record.key is None for record in records):
            self._turn = (turn + 1) % count
        return found

    def _records(self, lines: list[bytes]) -> list[Record]:
        separator = self._separator
        if separator is None:
            return [Record(value=line) for line in lines]
        records = []
        for line in lines:
            key, found, value = line.partition(separator)
            records.append(Record(key=key, value=value) if found else Record(value=line))
        return records
