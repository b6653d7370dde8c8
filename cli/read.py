"""``logstore read``: records become lines."""

from __future__ import annotations

import heapq
import re
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import click

import logstore
from logstore import times
from logstore.cli.formats import Formatter, parse_format
from logstore.cli.options import store_option
from logstore.cli.output import complain, json_line, record_fields, silence, standard_output
from logstore.cli.pipes import can_be_written, nobody_reads
from logstore.cli.read_group import read_group, read_share_group
from logstore.clock import SystemClock
from logstore.errors import InvalidInputError, OffsetOutOfRangeError
from logstore.log import PartitionLog
from logstore.ranges import last_records
from logstore.segments.files import DiskFiles
from logstore.segments.record import Record
from logstore.topic import Topic
from logstore.waiting import PartitionsWatch

__all__ = ["Start", "parse_offset", "parse_time", "read"]

_WRITE_BYTES = 64 << 10
_WAIT_SECONDS = 0.5
"""How often a wait is interrupted to see whether anybody still reads the output."""


class Start(NamedTuple):
    """Where to begin in each partition."""

    kind: str
    """``earliest``, ``latest``, ``offset``, ``last`` or ``time``."""
    number: int = 0
    """The offset, the count of records, or the timestamp."""


def parse_offset(text: str) -> Start:
    """What ``--offset`` says; raises ValueError."""
    if text in ("earliest", "latest"):
        return Start(text)
    if not re.fullmatch(r"-?\d{1,19}", text, re.ASCII):
        raise ValueError(f"{text!r} is no offset: a number, -10 for the last 10, earliest, latest")
    number = int(text)
    return Start("last", -number) if text.startswith("-") else Start("offset", number)


def parse_time(text: str, now_ms: int) -> Start:
    """What ``--since`` says: ISO 8601, milliseconds since 1970, or an age; raises ValueError."""
    return Start("time", times.parse_time(text, now_ms))


@click.command(short_help="Print the records of a topic.")
@click.argument("topic")
@store_option
@click.option(
    "--partition", type=click.IntRange(min=0), metavar="N", help="Read this partition only."
)
@click.option(
    "--offset",
    metavar="N",
    help="Begin at offset N, earliest (the default) or latest; -10 is the last 10 of each "
    "partition.",
)
@click.option(
    "--since",
    metavar="TIME",
    help="Begin at the first record of TIME or later: 2024-05-01T12:00:00Z (local time without a "
    "zone), milliseconds since 1970, or an age such as 10m, 2h, 1d.",
)
@click.option(
    "--group",
    metavar="GROUP",
    help="Read as a member of this consumer group what it has not read yet, and commit what was "
    "printed; --offset earliest or latest says where a group begins that has never read.",
)
@click.option(
    "--share-group",
    metavar="GROUP",
    help="Read as a consumer of this share group, and accept what was printed; --offset earliest "
    "or latest says where a group begins that is not there yet.",
)
@click.option("--max", "limit", type=click.IntRange(min=0), metavar="N", help="Stop after N.")
@click.option("--follow", is_flag=True, help="At the end, wait for more.")
@click.option("--json", "as_json", is_flag=True, help="Print each record as a JSON object.")
@click.option(
    "--format",
    "pattern",
    metavar="FORMAT",
    help="Print each record by a pattern in kcat's letters: %t topic, %p partition, %o offset, %T "
    "timestamp, %k key, %K its size, %s value, %S its size, %R its size in 4 bytes, %h headers.",
)
@click.pass_context
def read(
    ctx: click.Context,
    topic: str,
    store: str,
    partition: int | None,
    offset: str | None,
    since: str | None,
    group: str | None,
    share_group: str | None,
    limit: int | None,
    follow: bool,
    as_json: bool,
    pattern: str | None,
) -> None:
    """Print the records of TOPIC: their values, one a line.

    Partitions are merged by timestamp, and each one's records stay in order. Control records are
    not shown.

    \b
    Examples:
      logstore read orders --offset -3
      logstore read orders --since 2h --json
      logstore read orders --group report --max 100
      logstore read orders --share-group workers --max 10
    """
    start = _start(ctx, offset, since)
    if as_json and pattern is not None:
        raise click.UsageError("--json and --format exclude each other", ctx)
    formatter = _formatter(ctx, topic, as_json, pattern)
    if group is not None or share_group is not None:
        if group is not None and share_group is not None:
            raise click.UsageError("--group and --share-group exclude each other", ctx)
        if since is not None or partition is not None or start.kind not in ("earliest", "latest"):
            raise click.UsageError(
                f"with {'--group' if share_group is None else '--share-group'}, positions are the "
                "group's: leave out --partition, --since, and an --offset other than earliest and "
                "latest",
                ctx,
            )
        try:
            if group is not None:
                read_group(store, topic, group, start.kind, formatter, limit, follow=follow)
            elif share_group is not None:
                read_share_group(
                    store, topic, share_group, start.kind, formatter, limit, follow=follow
                )
        except KeyboardInterrupt:
            if not follow:
                raise
            _hand_on_what_is_left()
        return
    with logstore.open(store, create=False, read_only=True) as opened:
        cursors = _cursors(opened.topic(topic), partition, start)
        try:
            _print(cursors, formatter, limit, follow=follow)
        except KeyboardInterrupt:
            if not follow:
                raise
            _hand_on_what_is_left()


def _hand_on_what_is_left() -> None:
    """Whoever reads may have stopped, and would hold up the end."""
    if can_be_written():
        standard_output().flush()
    else:
        silence()


def _start(ctx: click.Context, offset: str | None, since: str | None) -> Start:
    if offset is not None and since is not None:
        raise click.UsageError("--offset and --since exclude each other", ctx)
    try:
        if since is not None:
            return parse_time(since, time.time_ns() // 1_000_000)
        return parse_offset("earliest" if offset is None else offset)
    except ValueError as error:
        raise click.UsageError(str(error), ctx) from None


def _formatter(ctx: click.Context, topic: str, as_json: bool, pattern: str | None) -> Formatter:
    if as_json:
        return lambda partition, record: json_line(
            {"type": "record", "topic": topic, "partition": partition, **record_fields(record)}
        )
    if pattern is None:
        return lambda partition, record: (record.value or b"") + b"\n"
    try:
        return parse_format(pattern, topic)
    except InvalidInputError as error:
        raise click.UsageError(str(error), ctx) from None


class _Cursor:
    """How far one partition was read."""

    def __init__(self, partition: int, log: PartitionLog, offset: int) -> None:
        self.partition = partition
        self.log = log
        self.offset = offset

    def end(self) -> int:
        """The log's end; where somebody has cut the log below what was read, reading goes on there.

        What is appended after a cut bears offsets that were read before.
        """
        end = self.log.log_end_offset
        if end < self.offset:
            complain(f"{self.log.directory}: the log was cut; it goes on at offset {end}")
            self.offset = end
        return end

    @property
    def directory(self) -> str:
        return self.log.directory

    def has_more(self) -> bool:
        return self.end() > self.offset

    def records(self) -> Iterator[tuple[int, Record]]:
        """What the partition holds now, from where the last call ended."""
        end = self.end()
        while self.offset < end:
            fetch = self.log.read(self.offset)
            if fetch.next_offset == self.offset:
                return
            for record in fetch.records():
                yield self.partition, record
            self.offset = fetch.next_offset


def _cursors(topic: Topic, partition: int | None, start: Start) -> list[_Cursor]:
    numbers = range(topic.partition_count) if partition is None else [partition]
    logs = [(number, topic.partition(number)) for number in numbers]
    if start.kind == "offset" and not any(start.number <= log.log_end_offset for _, log in logs):
        log = logs[0][1]
        raise OffsetOutOfRangeError(
            log.directory, start.number, log.log_start_offset, log.log_end_offset
        )
    # An offset that is there in one partition need not be there in another one.
    only = len(logs) == 1
    return [_Cursor(number, log, _first_offset(log, start, only=only)) for number, log in logs]


def _first_offset(log: PartitionLog, start: Start, *, only: bool) -> int:
    if start.kind == "earliest":
        return log.log_start_offset
    if start.kind == "latest":
        return log.log_end_offset
    if start.kind == "last":
        return last_records(log, start.number)
    if start.kind == "time":
        found = log.offset_for_time(start.number)
        return log.log_end_offset if found is None else found[0]
    return start.number if only else max(start.number, log.log_start_offset)


def _print(
    cursors: list[_Cursor], formatter: Formatter, limit: int | None, *, follow: bool
) -> None:
    output = standard_output()
    watch = PartitionsWatch(DiskFiles(), SystemClock())
    left = sys.maxsize if limit is None else limit
    while left > 0:
        left -= _print_what_is_there(cursors, formatter, left, output.write)
        output.flush()
        if not follow or left <= 0:
            return
        _wait(cursors, watch)


def _print_what_is_there(
    cursors: list[_Cursor], formatter: Formatter, limit: int, write: Callable[[bytes], object]
) -> int:
    """Print up to ``limit`` records, and return how many there were."""
    streams = [cursor.records() for cursor in cursors]
    merged = (
        streams[0]
        if len(streams) == 1
        else heapq.merge(*streams, key=lambda item: (item[1].timestamp, item[0]))
    )
    count = size = 0
    parts: list[bytes] = []
    try:
        for partition, record in merged:
            part = formatter(partition, record)
            parts.append(part)
            size += len(part)
            count += 1
            if size >= _WRITE_BYTES:
                write(b"".join(parts))
                parts.clear()
                size = 0
            if count == limit:
                break
    except KeyboardInterrupt:
        parts.clear()  # whoever reads may have stopped, and would hold up the end
        raise
    finally:
        # Damage further on does not hide what stands before it.
        write(b"".join(parts))
    return count


def _wait(cursors: list[_Cursor], watch: PartitionsWatch) -> None:
    """Return when there is more to read; raise BrokenPipeError when nobody reads the output."""
    while True:
        if watch.wait(cursors, _WAIT_SECONDS):
            return
        if nobody_reads():
            raise BrokenPipeError
