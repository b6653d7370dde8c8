"""``logstore replay``: a log is run again, stepped through, searched, compared."""

from __future__ import annotations

from typing import Any, NoReturn

import click

from logstore.cli.replay_bisect import run_bisect, run_bisect_command, run_fold
from logstore.cli.replay_debug import run_debugger
from logstore.cli.replay_diff import run_diff
from logstore.cli.replay_options import Options, replay_options
from logstore.cli.replay_run import run_replay
from logstore.cli.trouble import or_trouble

__all__ = ["replay"]

_PACE = ("speed", "rate", "max_pause")
_SINK = ("to", "to_store", "compression", "drop_headers", "add_headers", "resume", "save_every")
_MODES = ("debug", "diff", "bisect", "bisect_cmd")


@click.command(short_help="Run a log again: into a sink, step by step, or to find what broke it.")
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@replay_options
@click.pass_context
def replay(ctx: click.Context, /, sources: tuple[str, ...], **options: Any) -> None:
    """Replay the records of SOURCE: a topic (orders), partitions of it (orders:0,2), a queue with
    what it has acknowledged (queue:payments), a partition's directory, also one copied from a Kafka
    broker, or a file of JSON lines as read --json prints them (- is standard input).

    Partitions are merged by timestamp. Sources are only read: offsets of consumer groups and
    ledgers of queues are never moved. A replay ends with what was there when it began.

    \b
    Examples:
      logstore replay orders --where 'json.total > 100' --json
      logstore replay orders --speed 10x --to topic:orders-test
      logstore replay queue:payments --since 1h --to exchange:shop --to-store copy
      logstore replay orders --fold shop:ledger --bisect 'state.balance < 0'
      logstore replay orders --fold shop:ledger --debug
      logstore replay --diff orders orders-copy --by key

    Exit code: 0, or 1 where it failed, 2 for wrong use. With --bisect and --bisect-cmd: 0 found, 1
    there is no such record, 2 trouble. With --diff: 0 the same, 1 different, 2 trouble.
    """
    chosen = Options(**options)
    _check(ctx, sources, chosen)
    if chosen.diff:
        or_trouble(ctx, run_diff, sources, chosen)
    elif chosen.bisect is not None:
        or_trouble(ctx, run_bisect, sources[0], chosen)
    elif chosen.bisect_cmd is not None:
        or_trouble(ctx, run_bisect_command, sources[0], chosen)
    elif chosen.debug:
        run_debugger(ctx, sources[0], chosen)
    elif chosen.folds:
        run_fold(ctx, sources[0], chosen)
    else:
        run_replay(ctx, sources[0], chosen)


def _check(ctx: click.Context, sources: tuple[str, ...], chosen: Options) -> None:
    """What makes no sense together is wrong use; click's errors name the command's help."""

    def refuse(problem: str) -> NoReturn:
        raise click.UsageError(problem, ctx)

    modes = chosen.given(*_MODES)
    if len(modes) > 1:
        refuse(f"{_spelled(modes[0])} and {_spelled(modes[1])} exclude each other")
    if modes or chosen.folds:
        mode = modes[0] if modes else "folds"
        others = chosen.given(*_SINK, *_PACE, "dry_run", "pattern")
        if others:
            refuse(f"{_spelled(others[0])} makes no sense with {_spelled(mode)}")
    kind = (chosen.to or "").partition(":")[0]
    if kind in ("", "file", "call", "command") and chosen.to_store is not None:
        refuse("--to-store makes sense with --to topic:, queue: and exchange: only")
    if kind != "topic":
        others = chosen.given("compression")
        others += ["partitions"] if chosen.partitions != "same" else []
        others += ["timestamps"] if chosen.timestamps != "original" else []
        if others:
            refuse(f"{_spelled(others[0])} makes sense with --to topic:NAME only")
    if kind in ("topic", "queue", "exchange", "call") and not chosen.dry_run:
        others = chosen.given("as_json", "pattern")
        if others:
            refuse(f"{_spelled(others[0])} makes no sense with --to {kind}:...")
    if chosen.as_json and chosen.pattern is not None:
        refuse("--json and --format exclude each other")
    if chosen.bisect is not None and not chosen.folds:
        refuse("--bisect asks about a state: name a --fold")
    if chosen.bisect_cmd is not None and chosen.folds:
        refuse("--bisect-cmd and --fold exclude each other")
    if chosen.debug and chosen.as_json:
        refuse("--debug and --json exclude each other")
    if chosen.save_every is not None and chosen.resume is None:
        refuse("--save-every makes sense with --resume only")
    if chosen.limit is not None and modes:
        refuse(f"--max makes no sense with {_spelled(modes[0])}")
    wanted = 2 if chosen.diff and not chosen.folds else 1
    if len(sources) != wanted:
        refuse(f"{wanted} source{'s' * (wanted > 1)} expected, not {len(sources)}")
    if chosen.diff and len(chosen.folds) not in (0, 2):
        refuse("--diff compares two sources, or two folds of one: --fold f --fold g")
    if not chosen.diff and (chosen.compare is not None or chosen.by != "offset"):
        refuse("--by and --compare make sense with --diff only")
    if len(chosen.folds) > 1 and not chosen.diff:
        refuse("several folds make sense with --diff only")


def _spelled(name: str) -> str:
    known = {
        "folds": "fold",
        "drop_headers": "drop-header",
        "add_headers": "add-header",
        "pattern": "format",
        "as_json": "json",
    }
    return "--" + known.get(name, name.replace("_", "-"))
