"""The committed golden files are what Kafka's own classes write today."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from . import kafka_tools

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
WHY_NOT = kafka_tools.available()

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT)),
]


def test_kafka_writes_the_golden_files_again(tmp_path: Path) -> None:
    commands: list[list[str | Path]] = [["write", tmp_path], ["snapshot", tmp_path]]
    for answer in kafka_tools.oracle_many(commands):
        answer.check()
    written = _files(tmp_path)
    committed = _files(GOLDEN)
    assert sorted(written) == sorted(committed)
    assert [name for name in written if written[name] != committed[name]] == []


def test_kafka_reads_from_the_golden_files_what_their_sidecars_say() -> None:
    sidecars = sorted(GOLDEN.glob("*/*.json"))
    commands: list[list[str | Path]] = [
        [command, sidecar.with_suffix(".log"), *options]
        for sidecar in sidecars
        for command, *options in (["batches"], ["describe", "--brief"])
    ]
    answers = iter(kafka_tools.oracle_many(commands))
    for sidecar in sidecars:
        expected = json.loads(sidecar.read_text(encoding="utf-8"))
        assert next(answers).lines() == expected["batches"], sidecar
        assert next(answers).lines() == expected["records"], sidecar


def test_recovery_builds_the_indexes_that_appending_wrote(tmp_path: Path) -> None:
    logs = sorted(GOLDEN.glob("*/*.log"))
    commands: list[list[str | Path]] = []
    for log in logs:
        copy = tmp_path / log.parent.name
        copy.mkdir()
        (copy / log.name).write_bytes(log.read_bytes())
        commands.append(["recover", copy, log.stem.lstrip("0") or "0", "300"])
    for log, answer in zip(logs, kafka_tools.oracle_many(commands), strict=True):
        assert answer.check() == "0\n", f"{log}: recovery cut off bytes"
        for suffix in (".index", ".timeindex"):
            rebuilt = (tmp_path / log.parent.name / log.name).with_suffix(suffix)
            assert rebuilt.read_bytes() == log.with_suffix(suffix).read_bytes(), rebuilt


def _files(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name != "README.md"
    }
