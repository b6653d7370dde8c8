"""Where the offsets of a group, or of a share group, are moved to: options and what is printed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from logstore.cli.output import Lines, count_of, json_line, standard_output
from logstore.cli.read import parse_time
from logstore.cli.tables import print_table
from logstore.groups.resets import OffsetChange, OffsetReset
from logstore.partitions import TopicPartition
from logstore.store import Store

__all__ = ["chosen_partitions", "chosen_reset", "print_changes", "reset_options"]

_Command = TypeVar("_Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--to-earliest", is_flag=True, help="To the first offset of each partition."),
    click.option("--to-latest", is_flag=True, help="To the end of each partition."),
    click.option("--to-offset", type=click.IntRange(min=0), metavar="N", help="To offset N."),
    click.option(
        "--to-datetime",
        metavar="TIME",
        help="To the first record of TIME or later: 2024-05-01T12:00:00Z (local time without a "
        "zone), milliseconds since 1970, or an age such as 10m, 2h, 1d.",
    ),
    click.option(
        "--shift-by", type=int, metavar="N", help="By N offsets, back where N is negative."
    ),
    click.option(
        "--topic",
        "topics",
        multiple=True,
        metavar="TOPIC[:N,N...]",
        help="Only this topic, or some partitions of it; may be repeated. Without it: every "
        "partition that the group has come to.",
    ),
    click.option("--dry-run", is_flag=True, help="Say what would be moved, and change nothing."),
)


def reset_options(command: _Command) -> _Command:
    """Give a command the options that say where to."""
    for add in reversed(_OPTIONS):
        command = add(command)
    return command


def chosen_reset(ctx: click.Context, given: Mapping[str, Any]) -> OffsetReset:
    """What the options say."""
    to_offset, to_datetime, shift_by = (
        given["to_offset"],
        given["to_datetime"],
        given["shift_by"],
    )
    resets = [
        OffsetReset("earliest") if given["to_earliest"] else None,
        OffsetReset("latest") if given["to_latest"] else None,
        None if to_offset is None else OffsetReset("offset", to_offset),
        None if to_datetime is None else OffsetReset("datetime", _time(ctx, to_datetime)),
        None if shift_by is None else OffsetReset("shift", shift_by),
    ]
    chosen = [reset for reset in resets if reset is not None]
    if len(chosen) != 1:
        raise click.UsageError(
            "say where to, by one of --to-earliest, --to-latest, --to-offset, --to-datetime and "
            "--shift-by",
            ctx,
        )
    return chosen[0]


def _time(ctx: click.Context, text: str) -> int:
    try:
        return parse_time(text, time.time_ns() // 1_000_000).number
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param_hint="'--to-datetime'") from None


def chosen_partitions(
    ctx: click.Context, store: Store, texts: tuple[str, ...]
) -> list[TopicPartition] | None:
    """What ``--topic`` says; None where it says nothing."""
    if not texts:
        return None
    places = []
    for text in texts:
        name, colon, numbers = text.partition(":")
        topic = store.topic(name)
        chosen = numbers.split(",") if colon else map(str, range(topic.partition_count))
        for number in chosen:
            if not number.isdecimal():
                raise click.BadParameter(
                    f"{text!r} is not of the form topic or topic:0,1",
                    ctx,
                    param_hint="'--topic'",
                )
            topic.partition(int(number))  # raises for one that is not there
            places.append(TopicPartition(name, int(number)))
    return places


def print_changes(
    kind: str,
    name: str,
    changes: Mapping[TopicPartition, OffsetChange],
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Print what was moved (or would be) of a group of a ``kind``, before and after."""
    if as_json:
        for place, change in changes.items():
            fields = {
                "type": "offset-reset",
                kind.replace(" ", "_"): name,
                **place._asdict(),
                "before": None if change.before is None else change.before.offset,
                "after": change.after,
                "dry_run": dry_run,
            }
            standard_output().write(json_line(fields))
        return
    lines = Lines()
    verb = "would move" if dry_run else "moved"
    lines.line(f"{kind} {name}: {verb} {count_of(len(changes), 'partition')}")
    rows = [
        (
            place.topic,
            f"{place.partition}",
            "-" if change.before is None else f"{change.before.offset}",
            f"{change.after}",
        )
        for place, change in changes.items()
    ]
    if rows:
        print_table(lines, ("TOPIC", "PARTITION", "BEFORE", "AFTER"), rows)
