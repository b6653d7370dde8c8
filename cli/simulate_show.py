"""What ``logstore simulate`` prints: tables, what was lost and why, what was broken."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from logstore.cli.output import Lines, count_of, json_line, standard_output
from logstore.cli.tables import print_table
from logstore.replication.checkers.findings import Loss, Violation
from logstore.replication.outcome import Outcome, QueueOutcome
from logstore.replication.report.plots import label_of
from logstore.replication.scenario import Scenario, built_in_scenarios, load_scenario
from logstore.replication.trace import describe

__all__ = [
    "list_scenarios",
    "loss_fields",
    "print_losses",
    "print_outcomes",
    "print_violations",
    "progress_of",
]

_MOST_TOLD = 5
"""How many broken promises are told of in full."""


def list_scenarios(*, as_json: bool) -> None:
    """Print the scenarios that come with logstore."""
    scenarios = [load_scenario(name) for name in built_in_scenarios()]
    if as_json:
        output = standard_output()
        for scenario in scenarios:
            output.write(
                json_line(
                    {
                        "name": scenario.name,
                        "description": _in_one_line(scenario.description),
                        "source": _in_one_line(scenario.source),
                        "duration_ms": scenario.duration_ms,
                        "brokers": scenario.cluster.brokers,
                    }
                )
            )
        return
    lines = Lines()
    for scenario in scenarios:
        lines.line(scenario.name, "bold")
        for text in (scenario.description, scenario.source and f"After {scenario.source}"):
            if text:
                lines.line(click.wrap_text(_in_one_line(text), 96, "  ", "  "))


def _in_one_line(text: str) -> str:
    return " ".join(text.split())


@contextlib.contextmanager
def progress_of(
    tried: Sequence[Scenario], seeds: int
) -> Iterator[Callable[[int, Outcome], object]]:
    """A bar on standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda index, outcome: None
        return
    columns = (
        TextColumn("{task.fields[what]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=seeds * len(tried), what="simulating")
        yield lambda _, outcome: progress.update(
            task, advance=len(outcome.seeds), what=label_of(outcome)
        )


# Outcomes ---------------------------------------------------------------------------------------

_COLUMNS = (
    "RF",
    "ACKS",
    "MIN ISR",
    "ACKNOWLEDGED",
    "LOST",
    "DUPLICATED",
    "UNAVAILABLE",
    "P50 MS",
    "P99 MS",
    "NETWORK MB",
    "BETWEEN RACKS MB",
    "DISK MB",
)


_QUEUE_COLUMNS = (
    "RF",
    "ACKS",
    "MIN ISR",
    "CONFIRMED",
    "DELIVERED",
    "REDELIVERED",
    "ACKNOWLEDGED",
    "WAITING",
    "LOST",
    "ACKS LOST",
)


def print_outcomes(outcomes: Sequence[Outcome], *, lines: Lines) -> None:
    """Print a row for each combination, another one for its queues, and why anything was lost."""
    print_table(lines, _COLUMNS, [_row(outcome) for outcome in outcomes])
    queues = [(outcome, outcome.queues) for outcome in outcomes if outcome.queues is not None]
    if queues:
        lines.line("")
        lines.line("Messages of queues:")
        print_table(lines, _QUEUE_COLUMNS, [_queue_row(*each) for each in queues])
    first = outcomes[0]
    seconds = first.duration_ms / 1000 / len(first.seeds)
    lines.line("")
    lines.line(
        f"{count_of(len(first.seeds), 'run')} of {seconds:g} s for each row"
        + (", with unclean election" if first.unclean_election else "")
    )
    for outcome in outcomes:
        for reason, count in sorted(
            outcome.lost_because.items(), key=lambda item: (-item[1], item[0])
        ):
            lines.line(f"{label_of(outcome)}: {count_of(count, 'record')} lost: {reason}")
    for outcome, queue in queues:
        for reason, count in sorted(
            queue.acknowledgements_lost_because.items(), key=lambda item: (-item[1], item[0])
        ):
            what = count_of(count, "acknowledgement")
            lines.line(f"{label_of(outcome)}: {what} of messages lost: {reason}")


def _queue_row(outcome: Outcome, queues: QueueOutcome) -> tuple[str, ...]:
    return (
        str(outcome.replication_factor),
        str(outcome.acks),
        str(outcome.min_insync_replicas),
        *(
            f"{count:,}"
            for count in (
                queues.confirmed,
                queues.delivered,
                queues.redelivered,
                queues.acknowledged,
                queues.waiting,
                queues.lost,
                queues.acknowledgements_lost,
            )
        ),
    )


def _row(outcome: Outcome) -> tuple[str, ...]:
    unavailable = 100 * outcome.unavailable_ms / outcome.duration_ms
    return (
        str(outcome.replication_factor),
        str(outcome.acks),
        str(outcome.min_insync_replicas),
        f"{outcome.acknowledged:,}",
        f"{outcome.lost:,}",
        f"{outcome.duplicated:,}",
        f"{unavailable:.2f} %",
        f"{outcome.commit_latency_p50_ms:,.1f}",
        f"{outcome.commit_latency_p99_ms:,.1f}",
        *(
            f"{size / 1e6:,.1f}"
            for size in (outcome.network_bytes, outcome.between_racks_bytes, outcome.disk_bytes)
        ),
    )


def print_losses(outcomes: Sequence[Outcome], *, lines: Lines) -> None:
    """Print each loss that nothing promised to spare: the records, the reasons, the events."""
    for outcome in outcomes:
        for seed, loss in outcome.losses:
            lines.line("")
            lines.line(
                f"{label_of(outcome)}, seed {seed}: lost {_records(loss)} of {loss.partition}, "
                f"acknowledged from {_seconds(loss.acknowledged_us)} on, at "
                f"{_seconds(loss.lost_us)}",
                "bold",
            )
            for reason in loss.reasons:
                lines.line(f"  since {reason}")
            for event in loss.causes:
                lines.line(f"  {describe(event)}")
        records = [loss for _, loss in outcome.losses if loss.what == "records"]
        told = sum(len(loss.record_ids) for loss in records)
        if outcome.losses and told < outcome.lost:
            lines.line(f"... and {count_of(outcome.lost - told, 'record')} more")


def _records(loss: Loss) -> str:
    ids = loss.record_ids
    if loss.what == "acknowledgements":
        several = f"s of {len(ids):,} messages, {ids[0]} to {ids[-1]},"
        return "the acknowledgement" + (f" of {ids[0]}" if len(ids) == 1 else several)
    return ids[0] if len(ids) == 1 else f"{len(ids):,} records, {ids[0]} to {ids[-1]},"


def _seconds(at_us: int) -> str:
    return f"{at_us / 1_000_000:.3f} s"


def loss_fields(loss: Loss) -> dict[str, Any]:
    """A loss's JSON object."""
    return {
        "what": loss.what,
        "partition": loss.partition,
        "first_offset": loss.first_offset,
        "record_ids": list(loss.record_ids),
        "acknowledged_ms": loss.acknowledged_us / 1000,
        "lost_ms": loss.lost_us / 1000,
        "reasons": list(loss.reasons),
        "causes": [describe(event) for event in loss.causes],
    }


def print_violations(outcomes: Sequence[Outcome], command: Callable[[Outcome, int], str]) -> None:
    """Print on standard error every promise that was broken, what happened before it, and the
    command that shows the whole run."""
    for outcome in outcomes:
        for seed, violation in _of_different_runs(outcome):
            text = f"{label_of(outcome)}, seed {seed}: {violation.text}"
            click.echo(f"logstore: a promise is broken ({violation.kind}): {text}", err=True)
            for event in violation.events:
                click.echo(f"  {describe(event)}", err=True)
            click.echo(f"  again: {command(outcome, seed)}", err=True)
        if outcome.violation_count:
            kinds = Counter(violation.kind for _, violation in outcome.violations)
            click.echo(
                f"logstore: {label_of(outcome)}: "
                f"{count_of(outcome.violation_count, 'broken promise')} "
                f"({', '.join(f'{kind}: {count}' for kind, count in sorted(kinds.items()))})",
                err=True,
            )


def _of_different_runs(outcome: Outcome) -> Iterator[tuple[int, Violation]]:
    """The first one of each run: others follow from it."""
    seen: set[int] = set()
    for seed, violation in outcome.violations:
        if seed not in seen and len(seen) < _MOST_TOLD:
            seen.add(seed)
            yield seed, violation
