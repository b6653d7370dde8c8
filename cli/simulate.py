"""``logstore simulate``: what a replication factor buys, and what it costs."""

from __future__ import annotations

import os
import shlex
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import click

from logstore.cli.output import FAILED, Lines, json_line, standard_output
from logstore.cli.simulate_show import (
    list_scenarios,
    loss_fields,
    print_losses,
    print_outcomes,
    print_violations,
    progress_of,
)
from logstore.errors import InvalidInputError
from logstore.replication.outcome import Outcome
from logstore.replication.report.page import report_page
from logstore.replication.report.recording import draw_run, worth_drawing
from logstore.replication.run import run_seed
from logstore.replication.scenario import Scenario, load_scenario
from logstore.replication.sweep import combinations, run_all
from logstore.replication.trace import trace
from logstore.segments.files import DiskFiles, write_atomically

__all__ = ["simulate"]

SEEDS = 100
"""How many runs there are of each combination, if nobody says."""
MOST_SEEDS = 1_000_000
"""... and at most."""


_Callback = Callable[[click.Context, click.Parameter, str | None], tuple[Any, ...] | None]


def _several(parse: Callable[[str], Any], what: str) -> _Callback:
    """What takes apart values with commas between them; each counts once."""

    def parse_all(_: click.Context, __: click.Parameter, value: str | None) -> Any:
        if value is None:
            return None
        found = []
        for part in value.split(","):
            try:
                found.append(parse(part.strip()))
            except (ValueError, KeyError):
                problem = f"{part!r} is none of {what}, with commas between them"
                raise click.BadParameter(problem) from None
        return tuple(dict.fromkeys(found))

    return parse_all


def _factor(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


_ACKS: dict[str, Any] = {"0": 0, "1": 1, "all": "all", "-1": "all"}


def _changes(settings: Sequence[str]) -> dict[str, Any]:
    """``key=value`` pairs; a value is read as in TOML, and as text where it is none."""
    changes = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InvalidInputError(f"--set {text}: is to be KEY=VALUE")
        try:
            parsed = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            parsed = value
        changes[key] = tuple(parsed) if isinstance(parsed, list) else parsed
    return changes


@dataclass(frozen=True)
class _Given:
    """The options, as they were given; None where one was not."""

    scenario: str
    factors: tuple[int, ...] | None
    acks: tuple[Any, ...] | None
    min_isr: int | None
    unclean: bool | None
    seeds: int | None
    seed_start: int
    jobs: int
    settings: tuple[str, ...]
    as_json: bool
    explain: bool
    report: str | None
    traced: bool
    keep: str | None

    @property
    def single(self) -> bool:
        """Whether one run is to be looked at."""
        return self.traced or self.keep is not None

    @property
    def all_seeds(self) -> range:
        """The seeds of all runs."""
        count = self.seeds or (1 if self.single else SEEDS)
        return range(self.seed_start, self.seed_start + count)

    def combinations(self) -> list[Scenario]:
        """The scenario with every factor and every kind of acknowledgement."""
        return combinations(
            load_scenario(self.scenario).replace(_changes(self.settings)),
            factors=self.factors or (),
            acks=self.acks or (),
            min_insync_replicas=self.min_isr,
            unclean_election=self.unclean,
        )

    def command(self, outcome: Outcome, seed: int) -> str:
        """The command that shows one run."""
        unclean = outcome.unclean_election
        words = ["logstore", "simulate", self.scenario]
        words += ["--replication-factor", str(outcome.replication_factor)]
        words += ["--acks", str(outcome.acks), "--min-isr", str(outcome.min_insync_replicas)]
        words.append("--unclean-election" if unclean else "--no-unclean-election")
        for setting in self.settings:
            words += ["--set", setting]
        return shlex.join([*words, "--seed-start", str(seed), "--trace"])

    def whole_command(self) -> str:
        """The command that made all of it."""
        words = ["logstore", "simulate", self.scenario]
        if self.factors is not None:
            words += ["--replication-factor", ",".join(map(str, self.factors))]
        if self.acks is not None:
            words += ["--acks", ",".join(map(str, self.acks))]
        if self.min_isr is not None:
            words += ["--min-isr", str(self.min_isr)]
        if self.unclean is not None:
            words.append("--unclean-election" if self.unclean else "--no-unclean-election")
        for setting in self.settings:
            words += ["--set", setting]
        words += ["--seeds", str(len(self.all_seeds)), "--seed-start", str(self.seed_start)]
        return shlex.join([*words, "--report", str(self.report)])


@click.command
@click.argument("scenario", default="default")
@click.option(
    "--replication-factor",
    "factors",
    callback=_several(_factor, "whole numbers from 1 on"),
    metavar="N,N,...",
    help="Replicas of each partition; every number is tried.  [default: the scenario's]",
)
@click.option(
    "--acks",
    callback=_several(_ACKS.__getitem__, "0, 1, all"),
    metavar="0,1,all",
    help="What producers wait for; each is tried with every factor.  [default: the scenario's]",
)
@click.option(
    "--min-isr",
    type=click.IntRange(min=1),
    metavar="N",
    help="min_insync_replicas; for a factor that is less, the factor.  [default: the scenario's]",
)
@click.option(
    "--unclean-election/--no-unclean-election",
    "unclean",
    default=None,
    help="Whether a replica that is not in sync may lead if no other can.  "
    "[default: the scenario's]",
)
@click.option(
    "--seeds",
    type=click.IntRange(1, MOST_SEEDS),
    metavar="N",
    help=f"How many runs of each combination, each with its seed.  [default: {SEEDS}; one with "
    "--trace or --keep]",
)
@click.option(
    "--seed-start",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    metavar="N",
    help="The first seed.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=os.cpu_count() or 1,
    show_default="as many as there are cores",
    metavar="N",
    help="How many processes run; what they find does not depend on it.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Another value for an option of the scenario, such as disk.sync_us=5000.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each combination.")
@click.option(
    "--explain", is_flag=True, help="Tell of each loss which records it was, and what led to it."
)
@click.option(
    "--report", type=click.Path(dir_okay=False), metavar="FILE", help="Write a page of HTML, too."
)
@click.option("--trace", "traced", is_flag=True, help="Print every event of one run.")
@click.option(
    "--keep",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Write the brokers' disks at the end of one run into a new directory.",
)
@click.option("--list", "listed", is_flag=True, help="Print the scenarios there are, and end.")
@click.pass_context
def simulate(ctx: click.Context, /, *, listed: bool, **options: Any) -> None:
    """Run a cluster in which things go wrong, and see what a replication factor is worth.

    Each run is a cluster of brokers in this process: their logs are real, their clocks, disks and
    network are not, and a seed decides what goes wrong. Without SCENARIO it is `default`; a path to
    a TOML file is one of your own. Exits with 1 if a promise was broken.

    \b
    Examples:
    logstore simulate --replication-factor 1,3 --acks 1,all --seeds 3
    logstore simulate power-cut --set cluster.flush=page_cache --seeds 2 --explain
    logstore simulate rolling-restart --seed-start 17 --trace
    """
    given = _Given(**options)
    if listed:
        list_scenarios(as_json=given.as_json)
        return
    tried = given.combinations()
    _check_report(given.report)
    if given.single:
        if len(tried) > 1 or len(given.all_seeds) > 1:
            raise click.UsageError(
                f"--{'trace' if given.traced else 'keep'} is about one run: give one factor, one "
                "kind of acks, and one seed",
                ctx,
            )
        if given.traced and given.as_json:
            raise click.UsageError("--trace prints lines, and goes without --json", ctx)
        outcomes = [_run_one(tried[0], given)]
    else:
        with progress_of(tried, len(given.all_seeds)) as progress:
            run = run_all(tried, given.all_seeds, jobs=given.jobs, progress=progress)
            outcomes = list(run)
    if not given.traced:
        _print(outcomes, given)
    print_violations(outcomes, given.command)
    if given.report is not None:
        _write_report(tried, outcomes, given)
    if any(outcome.violation_count for outcome in outcomes):
        ctx.exit(FAILED)


def _check_report(path: str | None) -> None:
    """A report that could not be written is noticed before hours of runs, not behind them."""
    if path is None:
        return
    directory = os.path.dirname(path) or "."
    if not os.path.isdir(directory) or not os.access(directory, os.W_OK):
        raise InvalidInputError(f"{path}: {directory} is no directory that can be written to")


def _run_one(scenario: Scenario, given: _Given) -> Outcome:
    """One run, looked at closely."""
    keep = given.keep
    if keep is not None and os.path.isdir(keep) and os.listdir(keep):
        raise InvalidInputError(f"{keep}: a new or an empty directory is needed; this one is not")
    lines = Lines()
    outcome = run_seed(
        scenario,
        given.seed_start,
        watch=(lambda history: trace(history, lines.line)) if given.traced else None,
        keep=keep,
    )
    if given.traced:
        print_losses([outcome], lines=lines)
    return outcome


def _print(outcomes: Sequence[Outcome], given: _Given) -> None:
    if given.as_json:
        output = standard_output()
        for outcome in outcomes:
            fields = outcome.as_json()
            if given.explain:
                fields["losses"] = [
                    {"seed": seed, **loss_fields(loss)} for seed, loss in outcome.losses
                ]
            output.write(json_line(fields))
        return
    lines = Lines()
    print_outcomes(outcomes, lines=lines)
    if given.explain:
        print_losses(outcomes, lines=lines)


def _write_report(tried: Sequence[Scenario], outcomes: Sequence[Outcome], given: _Given) -> None:
    assert given.report is not None
    runs = [
        draw_run(tried[index], seed, command=given.command(outcomes[index], seed))
        for index, seed in worth_drawing(outcomes)
    ]
    page = report_page(tried[0], outcomes, runs, command=given.whole_command())
    write_atomically(DiskFiles(), given.report, page.encode())
    click.echo(f"the report is in {given.report}", err=True)
