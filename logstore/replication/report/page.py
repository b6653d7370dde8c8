"""The report: a page of HTML that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from logstore.replication.outcome import Outcome
from logstore.replication.report.plots import (
    availability_plot,
    cost_plot,
    label_of,
    latency_plot,
    loss_plot,
    lost_per_million,
    per_record,
    unavailable_percent,
)
from logstore.replication.report.recording import DrawnRun, told_partition
from logstore.replication.report.run_plot import run_plot
from logstore.replication.report.style import STYLE
from logstore.replication.scenario import Scenario

__all__ = ["report_page"]


def report_page(
    scenario: Scenario,
    outcomes: Sequence[Outcome],
    runs: Sequence[DrawnRun],
    *,
    command: str,
) -> str:
    """The page about outcomes of one scenario; ``command`` is what made it."""
    parts = [
        f"<h1>{escape(scenario.name)}: what a replication factor buys</h1>",
        f"<p>{escape(' '.join(scenario.description.split()))}</p>",
        _about(scenario, outcomes, command),
        "<h2>Bought, and paid for</h2>",
        _table(outcomes),
        _queue_table(outcomes),
        _key(outcomes),
        '<div class="pair">',
        _figure(
            "Records lost",
            loss_plot(outcomes),
            "Lower is safer, further left cheaper. A line joins what differs only in its factor.",
        ),
        _figure(
            "Time without writing",
            availability_plot(outcomes),
            "How long a partition had no leader, or fewer in-sync replicas than acks=all needs.",
        ),
        "</div>",
        "<h2>Waiting</h2>",
        _figure(
            "From a half to all but one of a hundred acknowledgements",
            latency_plot(outcomes),
            "From the first sending of a batch to its acknowledgement, over retries. "
            "The axis is logarithmic.",
            wide=True,
        ),
        "<h2>Paying</h2>",
        _figure(
            "Bytes for each acknowledged record",
            cost_plot(outcomes),
            "All that went from one machine to another, clients, controller and retries included; "
            "what of it went from one rack to another; and what lies on all disks at the end.",
            wide=True,
        ),
    ]
    parts += map(_run, runs)
    title = f"logstore simulate {scenario.name}"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )


def _about(scenario: Scenario, outcomes: Sequence[Outcome], command: str) -> str:
    cluster, workload = scenario.cluster, scenario.workload
    seeds = len(outcomes[0].seeds)
    about = escape(
        f"{seeds:,} {'run' if seeds == 1 else 'runs'} of {scenario.duration_ms / 1000:g} s for "
        f"each line; {cluster.brokers} brokers in racks {', '.join(dict.fromkeys(cluster.racks))}; "
        f"{cluster.partitions} {'partition' if cluster.partitions == 1 else 'partitions'}; "
        f"{workload.producers} producers of {workload.records_per_second:,} records of "
        f"{workload.record_bytes:,} bytes a second; flush={cluster.flush}."
    )
    return f'<p class="soft">{about}<br/>Made by <code>{escape(command)}</code></p>'


_COLUMNS = (
    "",
    "acknowledged",
    "lost",
    "lost of a million",
    "duplicated",
    "not writable",
    "p50",
    "p99",
    "network, bytes a record",
    "between racks, bytes a record",
    "on disk, bytes a record",
    "promises broken",
)


def _table(outcomes: Sequence[Outcome]) -> str:
    head = "".join(f"<th>{column}</th>" for column in _COLUMNS)
    rows = "".join(f"<tr>{_row(outcome)}</tr>" for outcome in outcomes)
    return f'<div class="scroll"><table><tr>{head}</tr>{rows}</table></div>'


def _row(outcome: Outcome) -> str:
    cells = [
        (escape(label_of(outcome)), False),
        (f"{outcome.acknowledged:,}", False),
        (f"{outcome.lost:,}", outcome.lost > 0),
        (f"{lost_per_million(outcome):,.1f}", outcome.lost > 0),
        (f"{outcome.duplicated:,}", outcome.duplicated > 0),
        (f"{unavailable_percent(outcome):.2f} %", False),
        (f"{outcome.commit_latency_p50_ms:,.1f} ms", False),
        (f"{outcome.commit_latency_p99_ms:,.1f} ms", False),
        (f"{per_record(outcome, outcome.network_bytes):,.0f}", False),
        (f"{per_record(outcome, outcome.between_racks_bytes):,.0f}", False),
        (f"{per_record(outcome, outcome.disk_bytes):,.0f}", False),
        (f"{outcome.violation_count:,}", outcome.violation_count > 0),
    ]
    return _cells(cells)


def _cells(cells: Sequence[tuple[str, bool]]) -> str:
    return "".join(f"<td{_BAD if bad else ''}>{text}</td>" for text, bad in cells)


_BAD = ' class="bad"'


_QUEUE_COLUMNS = (
    "messages of queues",
    "confirmed",
    "delivered",
    "delivered again",
    "acknowledged",
    "waiting at the end",
    "lost",
    "acknowledgements lost",
)


def _queue_table(outcomes: Sequence[Outcome]) -> str:
    """What became of the messages of mirrored queues, if there are any."""
    rows = ""
    for outcome in outcomes:
        queues = outcome.queues
        if queues is None:
            continue
        cells = [
            (escape(label_of(outcome)), False),
            (f"{queues.confirmed:,}", False),
            (f"{queues.delivered:,}", False),
            (f"{queues.redelivered:,}", False),
            (f"{queues.acknowledged:,}", False),
            (f"{queues.waiting:,}", False),
            (f"{queues.lost:,}", queues.lost > 0),
            (f"{queues.acknowledgements_lost:,}", queues.acknowledgements_lost > 0),
        ]
        rows += f"<tr>{_cells(cells)}</tr>"
    if not rows:
        return ""
    head = "".join(f"<th>{column}</th>" for column in _QUEUE_COLUMNS)
    return f'<div class="scroll"><table><tr>{head}</tr>{rows}</table></div>'


def _key(outcomes: Sequence[Outcome]) -> str:
    entries = "".join(
        f'<span><i class="acks-{acks}" style="background:var(--mark)"></i>acks={acks}</span>'
        for acks in dict.fromkeys(outcome.acks for outcome in outcomes)
    )
    return f'<p class="key" style="margin:14px 0">{entries}</p>'


def _figure(title: str, picture: str, caption: str, *, wide: bool = False) -> str:
    css = ' class="wide"' if wide else ""
    return (
        f"<figure{css}><h3>{escape(title)}</h3>{picture}"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


# The time line of a run -------------------------------------------------------------------------

_LANES = (
    ("leader", "leads (and its epoch)"),
    ("in-sync", "in sync"),
    ("eligible", "out of sync, but eligible to lead"),
    ("lane", "neither"),
    ("down", "process down"),
    ("leaderless", "nobody leads"),
)


def _run(run: DrawnRun) -> str:
    outcome, recording = run.outcome, run.recording
    partition = told_partition(outcome, recording)
    picture = run_plot(
        recording,
        partition,
        run.end_us,
        losses=[loss for _, loss in outcome.losses],
        violations=[violation for _, violation in outcome.violations],
    )
    key = "".join(f'<span><i class="{css}"></i>{text}</span>' for css, text in _LANES)
    caption = (
        "Above: what went wrong. Then a lane for each broker; beneath: how far the leader's log, "
        "its high watermark and the acknowledgements were. Point at anything to see when it was."
    )
    title = f"One run: {label_of(outcome)}, seed {outcome.seeds[0]}, {partition}"
    return (
        f"<h2>{escape(title)}</h2>"
        f'<figure class="wide">{picture}<p class="key">{key}</p>'
        f"<figcaption>{caption}</figcaption></figure>{_losses(outcome, partition)}"
        f'<p class="soft">Every event of it: <code>{escape(run.command)}</code></p>'
    )


def _losses(outcome: Outcome, partition: str) -> str:
    lines = []
    for _, loss in outcome.losses:
        if loss.partition == partition:
            ids = loss.record_ids
            which = ids[0] if len(ids) == 1 else f"{ids[0]} to {ids[-1]} ({len(ids):,} in all)"
            if loss.what == "acknowledgements":
                which = f"what was told to be done with, {which}"
            why = "; ".join(loss.reasons)
            lines.append(
                f"<li>Lost at {loss.lost_us / 1e6:.3f} s: {escape(which)}, acknowledged from "
                f"{loss.acknowledged_us / 1e6:.3f} s on. {escape(why[:1].upper() + why[1:])}.</li>"
            )
    for _, violation in outcome.violations:
        if violation.partition == partition:
            at = f"{violation.at_us / 1e6:.3f} s"
            lines.append(f"<li>Broken at {at}: {escape(violation.text)}</li>")
    return f"<ul>{''.join(lines)}</ul>" if lines else ""
