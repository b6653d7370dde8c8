"""``logstore retain`` and ``logstore compact``: what maintenance does, now and by hand."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from logstore.cli.options import json_option, open_store, store_option
from logstore.cli.output import FAILED, Lines, complain, count_of, json_line, standard_output
from logstore.cli.tables import Extent, print_changes
from logstore.compaction import CompactionPlan, CompactionResult
from logstore.errors import InvalidInputError, LogstoreError
from logstore.log import PartitionLog
from logstore.retention import Decision
from logstore.segments.filenames import partition_directory
from logstore.store import Store
from logstore.topic import Topic

__all__ = ["compact", "retain"]


def _dry_run_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--dry-run", is_flag=True, help="Say what would be done and why, and change nothing."
    )(command)


def _chosen(store: Store, names: Sequence[str]) -> list[Topic]:
    """The topics of these names, or all."""
    if not names:
        return store.topics()
    return [store.topic(name) for name in dict.fromkeys(names)]


class _Partitions:
    """The partitions of topics, one after another; a damaged one does not keep the others back."""

    def __init__(self, topics: Sequence[Topic]) -> None:
        self._topics = topics
        self.failed = 0
        """Partitions with which something went wrong."""

    def each(self, action: Callable[[str, Topic, int, PartitionLog], Callable[[], None]]) -> None:
        """Call ``action`` with each partition's name, topic, number and log, and what it returns,
        which prints what was done: that this fails is no fault of the partition."""
        for topic in self._topics:
            for number in range(topic.partition_count):
                name = partition_directory(topic.name, number)
                try:
                    show = action(name, topic, number, topic.partition(number))
                except (LogstoreError, OSError) as error:
                    self.failed += 1
                    complain(f"{name}: {error_text(error)}")
                else:
                    show()


def error_text(error: LogstoreError | OSError) -> str:
    """One line that says what went wrong, and with which file."""
    if isinstance(error, OSError) and error.filename:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return getattr(error, "strerror", None) or str(error)


# Retention ----------------------------------------------------------------------------------


@click.command(short_help="Delete what retention no longer keeps.")
@click.argument("topics", nargs=-1, metavar="[TOPIC]...")
@store_option
@_dry_run_option
@json_option
@click.pass_context
def retain(
    ctx: click.Context, topics: tuple[str, ...], store: str, dry_run: bool, as_json: bool
) -> None:
    """Delete the segments that retention no longer keeps, of each TOPIC or of all.

    For each segment it is said what was decided and why; behind that stand the sizes before and
    after. What counts are the topic's retention_ms, retention_bytes and cleanup_policy.

    \b
    Examples:
      logstore retain --dry-run
      logstore retain orders --json

    Exit code: 0 done, 1 a partition could not be dealt with, 2 wrong use.
    """
    changes: list[tuple[str, Extent, Extent]] = []
    lines = None if as_json else Lines()

    def one(name: str, topic: Topic, number: int, log: PartitionLog) -> Callable[[], None]:
        before = Extent.of(log)
        decisions = log.retain(dry_run=dry_run)
        if not dry_run:
            log.purge_deleted()
        after = _retained(decisions, before) if dry_run else Extent.of(log)

        def show() -> None:
            if lines is None:
                _print_json(topic.name, number, decisions, before, after, dry_run)
                return
            for decision in decisions:
                text = f"{name}: {_decision_text(decision, dry_run)}"
                lines.line(text, "yellow" if decision.delete else "")
            changes.append((name, before, after))

        return show

    with open_store(store, read_only=dry_run) as opened:
        partitions = _Partitions(_chosen(opened, topics))
        partitions.each(one)
    if lines is not None:
        print_changes(lines, changes)
    if partitions.failed:
        ctx.exit(FAILED)


def _decision_text(decision: Decision, dry_run: bool) -> str:
    segment = decision.segment
    verdict = ("would delete" if dry_run else "deleted") if decision.delete else "kept"
    if segment.next_offset > segment.base_offset:
        offsets = f", offsets {segment.base_offset} to {segment.next_offset - 1}"
    else:
        offsets = ""
    return (
        f"{verdict} segment {segment.base_offset:020d} "
        f"({count_of(segment.size, 'byte')}{offsets}): {decision.reason}"
    )


def _retained(decisions: Sequence[Decision], before: Extent) -> Extent:
    """What would be left."""
    kept = [decision.segment for decision in decisions if not decision.delete]
    doomed = [decision.segment for decision in decisions if decision.delete]
    first = max([before.first_offset, *(segment.next_offset for segment in doomed)])
    # An active segment that goes is rolled first: an empty one takes its place.
    rolled = bool(doomed) and doomed[-1].active
    return Extent(
        len(kept) + rolled, sum(segment.size for segment in kept), first, before.next_offset
    )


def _print_json(
    topic: str,
    number: int,
    decisions: Sequence[Decision],
    before: Extent,
    after: Extent,
    dry_run: bool,
) -> None:
    place = {"topic": topic, "partition": number}
    output = standard_output()
    for decision in decisions:
        fields = decision.segment._asdict()
        verdict = {"delete": decision.delete, "reason": decision.reason}
        output.write(json_line({"type": "decision", **place, **fields, **verdict}))
    result = {"before": before.fields(), "after": after.fields(), "dry_run": dry_run}
    output.write(json_line({"type": "retained", **place, **result}))


# Compaction ---------------------------------------------------------------------------------


@click.command(short_help="Keep only the last record of each key.")
@click.argument("topics", nargs=-1, metavar="[TOPIC]...")
@store_option
@click.option(
    "--force",
    is_flag=True,
    help="Compact whatever is dirty, even where min_cleanable_dirty_ratio is not reached.",
)
@_dry_run_option
@json_option
@click.pass_context
def compact(
    ctx: click.Context,
    topics: tuple[str, ...],
    store: str,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Compact each TOPIC, or all topics whose cleanup_policy says so, where it is due.

    Of the records with the same key the last one stays; the active segment is left alone. Readers
    and writers go on meanwhile. Behind what was done stand the sizes before and after.

    \b
    Examples:
      logstore compact
      logstore compact users --force --dry-run

    Exit code: 0 done, 1 a partition could not be dealt with, 2 wrong use.
    """
    changes: list[tuple[str, Extent, Extent]] = []
    lines = None if as_json else Lines()

    def one(name: str, topic: Topic, number: int, log: PartitionLog) -> Callable[[], None]:
        before = Extent.of(log)
        plan = log.plan_compaction()
        if dry_run:
            return partial(show_plan, name, topic, number, plan)
        with _progress(name, plan) as report:
            result = log.compact(force=force, report=report)
        log.purge_deleted()
        return partial(show_result, name, topic, number, result, before, Extent.of(log))

    def show_plan(name: str, topic: Topic, number: int, plan: CompactionPlan) -> None:
        place = {"topic": topic.name, "partition": number}
        due = plan.due or (force and plan.dirty_bytes > 0)
        if lines is None:
            fields = {"type": "compaction-plan", **place, **plan._asdict(), "due": due}
            standard_output().write(json_line(fields))
        else:
            lines.line(f"{name}: {_plan_text(plan, due)}", "yellow" if due else "")

    def show_result(
        name: str,
        topic: Topic,
        number: int,
        result: CompactionResult,
        before: Extent,
        after: Extent,
    ) -> None:
        place = {"topic": topic.name, "partition": number}
        if lines is None:
            extents = {"before": before.fields(), "after": after.fields()}
            numbers = {"passes": result.passes, "records_dropped": result.records_dropped}
            fields = {"type": "compacted", **place, "reason": result.reason, **numbers, **extents}
            standard_output().write(json_line(fields))
            return
        if result.passes:
            done = f"compacted, {count_of(result.records_dropped, 'record')} dropped"
            lines.line(f"{name}: {done}: {result.reason}", "green")
        else:
            lines.line(f"{name}: left as it is: {result.reason}")
        changes.append((name, before, after))

    with open_store(store, read_only=dry_run) as opened:
        partitions = _Partitions(_compacted(opened, topics))
        partitions.each(one)
    if lines is not None:
        print_changes(lines, changes)
    if partitions.failed:
        ctx.exit(FAILED)


def _compacted(store: Store, names: Sequence[str]) -> list[Topic]:
    """The topics of these names, or all that are compacted at all."""
    chosen = _chosen(store, names)
    if not names:
        return [topic for topic in chosen if topic.config.compacts]
    for topic in chosen:
        if not topic.config.compacts:
            raise InvalidInputError(
                f"topic {topic.name!r} is not compacted: "
                f"its cleanup_policy is {topic.config.cleanup_policy}"
            )
    return chosen


def _plan_text(plan: CompactionPlan, due: bool) -> str:
    verdict = "would be compacted" if due else "would be left as it is"
    return (
        f"{verdict}: {plan.reason} ({count_of(plan.clean_bytes, 'byte')} clean, "
        f"{count_of(plan.dirty_bytes, 'byte')} dirty)"
    )


@contextmanager
def _progress(name: str, plan: CompactionPlan) -> Iterator[Callable[[int], None] | None]:
    """A bar on standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    size = plan.clean_bytes + plan.dirty_bytes
    with Progress(
        TextColumn(f"compacting {name}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as progress:
        task = progress.add_task("", total=size)
        done = 0

        def report(size_of_part: int) -> None:
            nonlocal done, size
            done += size_of_part
            if done > size:  # more keys than fit into memory take another pass
                size += plan.clean_bytes + plan.dirty_bytes
            progress.update(task, completed=done, total=size)

        yield report
