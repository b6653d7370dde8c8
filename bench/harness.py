"""What the benchmarks share: interleaved rounds, medians, one plain table for each question.

A figure means little on a machine that does other things at the same time. So every figure stands
beside its *limits*, simpler programs that do a part of the same work, measured in the same run and
in turn with it (A B A B ...). What counts is the ratio; nothing here passes or fails.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.metadata
import json
import os
import platform
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from logstore.segments.checksum import IMPLEMENTATION
from logstore.segments.record import Record

__all__ = [
    "Figure",
    "Options",
    "Row",
    "Session",
    "Table",
    "Work",
    "report",
    "scratch_directory",
    "steady",
    "workload",
]

ROOT = Path(__file__).resolve().parent.parent

BATCH_RECORDS = 500
RECORD_BYTES = 200
"""Bytes of a record's key, value and headers together."""

Work = Callable[[], object]
"""Does the whole of what is timed; or returns a Figure, and is not timed."""

Session = Callable[[], AbstractContextManager[Work]]
"""Prepares a round, gives what is to be timed, and clears up; only the middle part counts."""


@dataclass
class Options:
    """What the command line asked for."""

    rounds: int
    scale: float
    """Multiplies the amount of work of a round."""
    only: str
    arguments: argparse.Namespace = field(default_factory=argparse.Namespace)
    """All of it, what a benchmark has added included."""

    def count(self, records: int) -> int:
        """So many records, scaled, and rounded to whole batches."""
        return max(BATCH_RECORDS, int(records * self.scale) // BATCH_RECORDS * BATCH_RECORDS)


class Figure(float):
    """What a program has measured itself, in the unit of its table."""


@dataclass
class Row:
    """A program that is timed."""

    name: str
    count: int
    """Items that a round of it handles."""
    session: Session
    letter: str = ""
    """The letter of a limit, which heads the column of the ratios to it; none for our own rows."""
    goal: float | None = None
    """Items a second, or where ``goal_of`` names a limit, the part of it, that is the goal; in a
    table of costs, what it may cost at most."""
    goal_of: str = ""
    rates: list[float] = field(default_factory=list)
    """Items a second of every round; in a table of costs, what each round cost."""

    @property
    def rate(self) -> float:
        """The median."""
        return statistics.median(self.rates)


@dataclass
class Table:
    """One question: our own programs, and their limits."""

    title: str
    rows: list[Row]
    unit: str = "records/s"
    cost: bool = False
    """Whether less is better: the figures are milliseconds of a round, or what the rows measure
    themselves, and not items a second."""

    def best(self, row: Row) -> float:
        """The best round: on a busy machine the one that was disturbed least."""
        return min(row.rates) if self.cost else max(row.rates)

    def run(self, rounds: int) -> None:
        """Time every row once in each round, in turn."""
        for row in self.rows:  # a round that does not count: caches, imports, the first page
            _time(row)
        for _ in range(rounds):
            for row in self.rows:
                figure = _time(row)
                if isinstance(figure, Figure):
                    row.rates.append(figure)
                else:
                    row.rates.append(figure * 1000 if self.cost else row.count / figure)

    def ratios(self, row: Row) -> dict[str, float]:
        """The row's rate as a part of each limit's: the median over rounds, for in one round both
        met the same machine."""
        return {
            limit.letter: statistics.median(
                ours / its for ours, its in zip(row.rates, limit.rates, strict=True)
            )
            for limit in self.rows
            if limit.letter
        }

    def lines(self) -> Iterator[str]:
        """The table as text."""
        letters = [row.letter for row in self.rows if row.letter]
        columns = "".join(f"{'of ' + letter:>8}" for letter in letters)
        yield f"{self.title:<58}{self.unit:>12}{'best':>12}{columns}  goal"
        for row in self.rows:
            ratios = self.ratios(row)
            digits = ".2f" if self.cost else ".0f"
            cells = "" if row.letter else "".join(f"{ratios[letter]:>8.2f}" for letter in letters)
            figures = f"{row.rate:>12,{digits}}{self.best(row):>12,{digits}}"
            line = f"{row.letter:>3} {row.name:<54}{figures}{cells}"
            yield f"{line}  {self._goal(row, ratios)}".rstrip()

    def _goal(self, row: Row, ratios: dict[str, float]) -> str:
        if row.goal is None:
            return ""
        if self.cost:
            return f"at most {row.goal:,g} (got {row.rate / row.goal:.2f} of it)"
        if row.goal_of:
            return f"{row.goal:.2f} of {row.goal_of} (got {ratios[row.goal_of]:.2f})"
        return f"{row.goal:,.0f} (got {row.rate / row.goal:.2f} of it)"

    def as_json(self) -> dict[str, Any]:
        """The table for a program."""
        return {
            "title": self.title,
            "unit": self.unit,
            "rows": [
                {
                    "name": row.name,
                    "letter": row.letter or None,
                    "median": round(row.rate, 3),
                    "rounds": [round(rate, 3) for rate in row.rates],
                    "ratios": {k: round(v, 4) for k, v in self.ratios(row).items()},
                    "goal": row.goal,
                    "goal_of": row.goal_of or None,
                }
                for row in self.rows
            ],
        }


def _time(row: Row) -> float:
    with row.session() as work:
        # What a benchmark itself has prepared is not to be looked through by the collector, which
        # otherwise stays on: programs run with it.
        gc.collect()
        gc.freeze()
        try:
            start = time.perf_counter()
            result = work()
            return result if isinstance(result, Figure) else time.perf_counter() - start
        finally:
            gc.unfreeze()


def steady(work: Work) -> Session:
    """The session of work that needs no preparation."""
    return lambda: contextlib.nullcontext(work)


def report(
    description: str,
    make_tables: Callable[[Options], Iterable[Table]],
    add_arguments: Callable[[argparse.ArgumentParser], object] = lambda _: None,
) -> None:
    """Read the command line, run every table that it asks for, and print them; whoever reads the
    output may stop in the middle (``| head``)."""
    try:
        _report(description, make_tables, add_arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # What is left in the buffer would fail again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _report(
    description: str,
    make_tables: Callable[[Options], Iterable[Table]],
    add_arguments: Callable[[argparse.ArgumentParser], object],
) -> None:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, three rounds")
    parser.add_argument("--rounds", type=int, help="rounds to take the median of (default: 9)")
    parser.add_argument("--only", default="", help="only tables whose title contains this")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    add_arguments(parser)
    arguments = parser.parse_args()
    options = Options(
        rounds=arguments.rounds or (3 if arguments.quick else 9),
        scale=0.1 if arguments.quick else 1,
        only=arguments.only,
        arguments=arguments,
    )
    about = _about(options)
    if not arguments.json:
        print("\n".join(f"{key}: {value}" for key, value in about.items()))
    results = []
    for table in make_tables(options):
        if options.only not in table.title:
            continue
        table.run(options.rounds)
        results.append(table.as_json())
        if not arguments.json:
            print()
            print("\n".join(table.lines()), flush=True)
    if arguments.json:
        json.dump({**about, "tables": results}, sys.stdout, indent=1)
        print()


def _about(options: Options) -> dict[str, Any]:
    packages = ("google-crc32c", "cramjam", "zstandard", "lmdb", "aiokafka")
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        "crc32c": IMPLEMENTATION,
        "packages": ", ".join(f"{name} {_version(name)}" for name in packages),
        "figures": f"medians of {options.rounds} interleaved rounds; 'of A' is the ratio to row A",
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


@contextlib.contextmanager
def scratch_directory() -> Iterator[Path]:
    """A directory that is removed in the end, on the disk that the repository is on: the usual
    place for temporary files may be memory."""
    parent = ROOT / "build"
    parent.mkdir(exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix="bench-", dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path)
        with contextlib.suppress(OSError):
            parent.rmdir()


# Workloads ------------------------------------------------------------------------------------

_START_MS = 1_700_000_000_000
_DIFFERENT_BATCHES = 5


def workload(kind: str, count: int) -> list[list[Record]]:
    """``count`` records of about 200 bytes in batches of 500, the same ones every time.

    They are the same few batches, again and again: a record that is appended has just been made,
    and is in the processor's cache, where 20 MB of records made in advance would not be.

    ``kind``: ``same size`` (values only, no timestamps of their own), ``stamped`` (the same with
    timestamps), ``varied size``, ``keyed`` and ``headers`` (all with timestamps).
    """
    rng = random.Random(20240501)
    make = _KINDS[kind]
    batches = [
        [make(rng, _START_MS + number // 4) for number in range(BATCH_RECORDS)]
        for _ in range(_DIFFERENT_BATCHES)
    ]
    return (batches * (count // BATCH_RECORDS // len(batches) + 1))[: count // BATCH_RECORDS]


def _text(rng: random.Random, size: int) -> bytes:
    """Something like a line of a log: a codec finds about as much in it."""
    line = (
        f"10.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(256)} - - "
        f'"GET /products/{rng.randrange(100_000)}?session={rng.getrandbits(64):016x} HTTP/1.1" '
        f"{rng.choice((200, 200, 200, 304, 404))} {rng.randrange(50_000)} "
        f'"https://www.example.org/category/{rng.randrange(500)}" "Mozilla/5.0 (X11; Linux)" '
    ).encode()
    return (line + rng.randbytes(size).hex().encode())[:size]


def _headers(rng: random.Random, timestamp: int) -> Record:
    headers = (("type", b"order-created"), ("trace", rng.randbytes(8)))
    used = sum(len(name) + len(value) for name, value in headers)
    return Record(timestamp=timestamp, value=_text(rng, RECORD_BYTES - used), headers=headers)


_KINDS: dict[str, Callable[[random.Random, int], Record]] = {
    "same size": lambda rng, _: Record(value=_text(rng, RECORD_BYTES)),
    "stamped": lambda rng, at: Record(timestamp=at, value=_text(rng, RECORD_BYTES)),
    "varied size": lambda rng, at: Record(
        timestamp=at, value=_text(rng, rng.randrange(RECORD_BYTES // 2, RECORD_BYTES * 3 // 2))
    ),
    "keyed": lambda rng, at: Record(
        timestamp=at,
        key=b"customer-%07d" % rng.randrange(10_000_000),
        value=_text(rng, RECORD_BYTES - 16),
    ),
    "headers": _headers,
}
