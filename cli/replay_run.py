"""``logstore replay`` into a sink."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from logstore.cli.interrupts import Interrupts
from logstore.cli.output import (
    FAILED,
    WRONG_USE,
    Lines,
    complain,
    count_of,
    json_line,
    standard_output,
)
from logstore.cli.parsing import parse_header
from logstore.cli.replay_options import Options
from logstore.cli.start import INTERRUPTED
from logstore.clock import SystemClock
from logstore.errors import InvalidInputError, LogstoreError
from logstore.fetcher import ConsumerRecord
from logstore.json_records import record_line
from logstore.replay.engine import Outcome, Replay
from logstore.replay.filters import change_headers
from logstore.replay.log_source import LogSource
from logstore.replay.pace import Pace
from logstore.replay.registry import SinkOptions, open_sink
from logstore.replay.resume import ResumeFile
from logstore.replay.sink import CountingSink, LinesSink, Sink
from logstore.replay.source import Position, Source
from logstore.replay.topic_sink import parse_partition_map
from logstore.segments.filenames import partition_directory
from logstore.segments.files import DiskFiles

__all__ = ["run_replay"]

_MOST_PLACES = 8
"""The most partitions whose offsets are told in one line."""


def run_replay(ctx: click.Context, text: str, options: Options) -> None:
    """Replay a source into the sink that was asked for, and say on standard error how much it was;
    raises what the library raises where nothing was delivered yet."""
    test, pace = options.test(), options.pace()
    headers = [parse_header(os.fsencode(one)) for one in options.add_headers]
    transform = change_headers(options.drop_headers, headers)
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(options.open_source(text, again=False))
        sink = _sink(options, source, stack)
        resume = None
        if options.resume is not None and not options.dry_run:
            resume = _resume_file(options, source, sink)
            stack.callback(resume.close)
        interrupts = stack.enter_context(Interrupts())
        with _progress(source, pace) as report:
            run = Replay(
                source,
                sink,
                test=test,
                transform=transform,
                pace=pace,
                limit=options.limit,
                resume=resume,
                save_every=options.save_every,
                clock=SystemClock(),
                shield=interrupts.shield,
                report=report,
            )
            started = time.monotonic()
            outcome = _run(ctx, run, sink, options)
        seconds = time.monotonic() - started
        if isinstance(sink, CountingSink):
            _print_dry_run(sink, options)
        else:
            _say(outcome, seconds)


def _run(ctx: click.Context, run: Replay, sink: Sink, options: Options) -> Outcome:
    """The replay, and the end of its sink; what ends it early is told with how far it came."""
    try:
        try:
            outcome = run.run()
        except BaseException:
            with contextlib.suppress(LogstoreError, OSError):  # the first error counts
                sink.close()
            raise
        sink.close()
    except KeyboardInterrupt:
        resume = f"; go on with --resume {options.resume}" if options.resume else ""
        complain(f"interrupted: {_how_far(run)}{resume}")
        ctx.exit(INTERRUPTED)
    except BrokenPipeError:
        raise
    except (LogstoreError, OSError) as error:
        if isinstance(error, OSError) and error.filename:
            problem = f"{os.fsdecode(error.filename)}: {error.strerror}"
        else:
            problem = str(error)
        complain(f"{problem} ({_how_far(run)})" if run.delivered else problem)
        ctx.exit(
            WRONG_USE if isinstance(error, InvalidInputError) and not run.delivered else FAILED
        )
    return outcome


def _how_far(run: Replay) -> str:
    """How many records were delivered, and where the source stands."""
    places = sorted(run.position.items())
    shown = ", ".join(f"{name} at {place}" for name, place in places[:_MOST_PLACES])
    more = f" and {len(places) - _MOST_PLACES} more" if len(places) > _MOST_PLACES else ""
    return f"{count_of(run.delivered, 'record')} delivered before that; {shown}{more}"


def _say(outcome: Outcome, seconds: float) -> None:
    rate = outcome.delivered / seconds if seconds else 0
    text = f"{count_of(outcome.delivered, 'record')} replayed in {seconds:.2f} s"
    text += f": {rate:,.0f} records/s"
    if outcome.in_batches:
        text += f", {outcome.in_batches:,} of them in whole batches"
    if outcome.before:
        text += f"; {count_of(outcome.before, 'record')} by earlier runs"
    click.echo(text, err=True)


# Sinks ------------------------------------------------------------------------------------------


def _sink(options: Options, source: Source, stack: contextlib.ExitStack) -> Sink:
    if options.to is None:
        form = options.form(_value_line)
        if options.dry_run:
            return CountingSink()
        output = standard_output()
        return LinesSink("standard output", form, output.write, output.flush)
    form = options.form(record_line)
    mapped = parse_partition_map(options.partitions)
    if isinstance(source, LogSource) and not mapped.by_key:
        for part in source.parts:  # a hole in the map is told before a topic is made in vain
            mapped.of_partition(part.partition)
    if options.dry_run:
        return CountingSink()
    return open_sink(
        options.to,
        SinkOptions(
            stack,
            options.to_store or options.store,
            source.partitions,
            mapped,
            options.timestamps == "original",
            options.codec(),
            form,
            options.resume is not None,
            DiskFiles(),
            SystemClock(),
        ),
    )


def _value_line(record: ConsumerRecord) -> bytes:
    return (record.value or b"") + b"\n"


def _resume_file(options: Options, source: Source, sink: Sink) -> ResumeFile:
    assert options.resume is not None
    identity = {
        "source": source.identity,
        "filters": options.filters().described(),
        "headers": [list(options.drop_headers), list(options.add_headers)],
        "sink": sink.identity,
    }
    return ResumeFile(options.resume, identity, files=DiskFiles())


def _print_dry_run(sink: CountingSink, options: Options) -> None:
    """What would have been delivered, partition by partition."""
    if options.as_json:
        output = standard_output()
        for (topic, partition), (count, first, last) in sorted(sink.offsets.items()):
            output.write(
                json_line(
                    {
                        "type": "dry-run",
                        "topic": topic,
                        "partition": partition,
                        "records": count,
                        "first_offset": first,
                        "last_offset": last,
                    }
                )
            )
        return
    lines = Lines()
    for (topic, partition), (count, first, last) in sorted(sink.offsets.items()):
        name = partition_directory(topic, partition)
        lines.line(f"{name}: {count_of(count, 'record')}, offsets {first} to {last}")
    where = options.to or "standard output"
    lines.line(f"would replay {count_of(sink.delivered, 'record')} to {where}")


# Progress ---------------------------------------------------------------------------------------

Report = Callable[[Position, int], object]


class _Left(TimeRemainingColumn):
    """The estimated time: what the pace says where it does, else by what was done so far."""

    def __init__(self, pace: Pace | None, newest: int) -> None:
        super().__init__()
        self._pace = pace
        self._newest = newest

    def render(self, task: Task) -> Text:
        """The column's text."""
        left = None if self._pace is None else self._pace.left(self._newest)
        if left is None:
            return super().render(task)
        minutes, seconds = divmod(round(left), 60)
        hours, minutes = divmod(minutes, 60)
        return Text(f"{hours}:{minutes:02}:{seconds:02}", style="progress.remaining")


@contextlib.contextmanager
def _progress(source: Source, pace: Pace | None) -> Iterator[Report]:
    """A bar on standard error, if that is a terminal and standard output is none."""
    if not sys.stderr.isatty() or (sys.stdout is not None and sys.stdout.isatty()):
        yield lambda position, delivered: None
        return
    _, total = source.progress(source.start)
    newest = -1 if pace is None else source.newest()
    columns: tuple[ProgressColumn, ...] = (
        TextColumn("replaying"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%  {task.fields[delivered]:,} records"),
        _Left(pace, newest),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total or None, delivered=0)
        yield lambda position, delivered: progress.update(
            task, completed=source.progress(position)[0], delivered=delivered
        )
