"""What ``--json`` prints is what ``docs/cli.md`` says, object by object and field by field."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

from logstore.cli.main import main

from .program import GOLDEN
from .test_examples import COMMANDS
from .world import make_world

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENT = ROOT / "docs" / "cli.md"

_ROW = re.compile(r"\|(?P<fields>[^|]+)\|(?P<type>[^|]+)\|")
_NAME = re.compile(r"`([\w-]+)`")
_VALUE = re.compile(r'`"([\w-]+)"`')


class Table(NamedTuple):
    """A documented object."""

    heading: str
    fields: frozenset[str]
    types: tuple[str, ...]
    """What its field ``type`` may be; empty where that is no mark of it."""


def documented() -> list[Table]:
    """The tables of the section about JSON."""
    text = DOCUMENT.read_text(encoding="utf-8").partition("\n## JSON\n")[2]
    tables = []
    for section in text.split("\n### ")[1:]:
        heading = section.splitlines()[0]
        for block in re.split(r"\n\n", section):
            if block.startswith("| File |"):
                tables += _entries(heading, block)
            if not block.startswith("| Field |"):
                continue
            fields: set[str] = set()
            types: tuple[str, ...] = ()
            for line in block.splitlines()[2:]:
                row = _ROW.match(line)
                assert row, line
                names = _NAME.findall(row["fields"])
                assert names, line
                fields.update(names)
                if names == ["type"]:
                    types = tuple(_VALUE.findall(row["type"]))
            tables.append(Table(heading, frozenset(fields), types))
    return tables


def _entries(heading: str, block: str) -> list[Table]:
    """The table of entries of files, which has an object in each row."""
    tables = []
    for line in block.splitlines()[2:]:
        _, kind, fields = line.strip("| ").split(" | ", 2)
        names = {"type", "file", "position", "hex", *_NAME.findall(fields)}
        tables.append(Table(heading, frozenset(names), tuple(_VALUE.findall(kind))))
    return tables


CALLS = """
append orders --json < events.json | -
backup more --json
restore backups restored --json
check damaged.log --json
check unindexed-0 --json
compact users --force --dry-run --json
compact users --force --json
completion bash | -
consume payments --exec ./handle --timeout 0 --json | A message
delete-records orders --partition 0 --before 3 --yes --json
truncate orders --partition 0 --to 3 --dry-run --json
dump data --json --records --hex
dump damaged.log --json
dump orders-0/00000000000000000000.index --json --hex
dump orders-0/00000000000000000000.timeindex --json --hex
dump GOLDEN/partition-0/00000000000000000050.txnindex --json --hex
dump GOLDEN/partition-0/00000000000000000066.snapshot --json --hex
dump GOLDEN/partition-0/leader-epoch-checkpoint --json --hex
dump GOLDEN/partition-0/partition.metadata --json --hex
dump GOLDEN/v2-control-0 --json --records
exchange declare one --type topic --json | An exchange
exchange list --json | An exchange
exchange delete idle --json | Something deleted
find '' orders --json -m 1 -A 1
find -c '' --json
find -l '' --json
group list --json
group describe billing --json
group reset-offsets billing --to-earliest --json
group delete billing --yes --json
hexdump 00000000000000000000.log --offset 1017 --records --json
hexdump damaged.log --json
index orders-0 --offset 1017 --json
index orders-0 --time 2026-03-02T04:10:00Z --json
index orders-0 --offset 5 --json
index GOLDEN/partition-0 --json
queue declare two --json | A queue
queue list --json | A queue
queue describe payments --json | A queue
queue bind empty shop one.# --json | A binding
queue unbind payments shop order.# --json | A binding
queue publish shop order.one body --json | A publish
queue get payments --json | A message
queue peek payments --json | A message
queue ledger payments --json
queue seek payments --to-earliest --json | A seek
queue redrive failed --json | A redrive
queue purge payments --json | A purge
queue delete empty --json | Something deleted
read orders --json
repair broken-0 --json | A step of repair
replay orders --json
replay orders --dry-run --json
replay orders --fold shop:ledger --json
replay orders --fold shop:ledger --bisect 'state.balance < 0' --json | What replay prints
replay --diff orders users --json
replay --diff orders --fold shop:ledger --fold shop:other --json
retain --json
share-group list --json
share-group describe workers --json
share-group alter workers --config share_record_lock_duration_ms=60000 --json
share-group reset-offsets workers --to-earliest --json
share-group delete workers --yes --json
simulate --replication-factor 1 --seeds 2 --json --explain | A combination of settings, simulated
simulate mirrored-queue --seeds 1 --json | A combination of settings, simulated
simulate --list --json | A scenario
stats --json --segments
topic list --json
topic describe orders --json
topic create sessions --json
topic alter orders --config retention_ms=1000000 --json
topic alter --defaults --config compression_type=zstd --json
topic delete orders --yes --json
"""
"""A call a line; behind the bar the heading of what it prints, where that has no ``type`` to go by,
or ``-`` where it prints no JSON."""

NEVER_MET = {"finding"}
"""Types that only a fault of ours would bring forth; their own tests make them."""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("world")
    make_world(path)
    log = bytearray((path / "orders-0" / "00000000000000000000.log").read_bytes())
    (path / "unindexed-0").mkdir()
    (path / "unindexed-0" / "00000000000000000000.log").write_bytes(log)
    log[400] ^= 1
    (path / "damaged.log").write_bytes(log[:2000])
    (path / "broken-0").mkdir()
    (path / "broken-0" / "00000000000000000000.log").write_bytes(log[:2030])
    return path


def printed(call: str, original: Path, world: Path) -> list[dict[str, Any]]:
    """The objects that a call prints, in a copy of the original."""
    shutil.copytree(original, world)
    arguments = shlex.split(call.replace("GOLDEN", str(GOLDEN)))
    stdin = b""
    if "<" in arguments:
        place = arguments.index("<")
        stdin = (world / arguments[place + 1]).read_bytes()
        del arguments[place : place + 2]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(world)
        patch.setenv("LOGSTORE_DIR", "data")
        patch.setattr(sys, "path", list(sys.path))
        patch.delitem(sys.modules, "shop", raising=False)
        result = CliRunner().invoke(main, arguments, input=stdin)
        sys.modules.pop("shop", None)
    shutil.rmtree(world)
    assert isinstance(result.exception, (SystemExit, type(None))), result.exc_info
    assert result.exit_code in (0, 1), result.stderr
    return [] if "completion" in call else list(map(json.loads, result.stdout_bytes.splitlines()))


def tables_of(found: dict[str, Any], heading: str, tables: list[Table]) -> list[Table]:
    """The tables that may be about an object."""
    if heading:
        return [table for table in tables if table.heading == heading and not table.types]
    return [table for table in tables if found.get("type") in table.types]


def test_what_is_printed_is_what_is_documented(original: Path, tmp_path: Path) -> None:
    tables = documented()
    assert len(tables) > 40
    seen: defaultdict[Table, set[str]] = defaultdict(set)
    types: set[str] = set()
    for number, line in enumerate(CALLS.strip().splitlines()):
        call, _, heading = line.partition(" | ")
        objects = printed(call, original, tmp_path / str(number))
        if heading == "-":
            continue
        assert objects, f"{call}: it prints nothing"
        for found in objects:
            about = tables_of(found, heading, tables)
            assert about, f"{call}: nothing is said of {found}"
            known = frozenset().union(*(table.fields for table in about))
            assert set(found) <= known, f"{call}: fields that are not documented: {found}"
            for table in about:
                seen[table] |= set(found)
            types.add(str(found.get("type")))
    for table in tables:
        if NEVER_MET.isdisjoint(table.types):
            assert table.fields <= seen[table], f"{table}: documented, and never printed"
            assert set(table.types) <= types, f"{table}: types that are never printed"


def test_every_command_that_prints_json_is_called() -> None:
    calls = [line.split(" | ")[0].split() for line in CALLS.strip().splitlines()]
    for words, command in COMMANDS:
        assert any(tuple(call[: len(words)]) == words for call in calls), words
        has_json = any("--json" in option.opts for option in command.params)
        assert has_json or words == ("completion",), f"{words}: no --json"
