"""Checking what a store knows of itself and of its topics."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import logstore
from logstore import FormatError, PartitionLog, Record, StoreNotFoundError
from logstore.check_store import check_store
from logstore.partition_files import PartitionFiles
from logstore.repair import repair
from logstore.segments.check import Totals
from logstore.topics import TopicCatalogue

GOLDEN = Path(__file__).resolve().parent.parent / "golden"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    with logstore.open(path, maintenance_interval=None) as store:
        store.create_topic("orders", partitions=3).partition(2).append([Record(value=b"x")])
        store.create_topic("other").partition(0).append([Record(value=b"y")])
        store.create_topic("gone")
        store.delete_topic("gone")
        exchange = store.exchange("shop", type="fanout")
        for name in ("payments", "left"):
            store.queue(name).bind(exchange)
        exchange.publish(b"paid")
        store.queue("left").delete()
    return path


def findings(path: Path) -> list[tuple[str, str]]:
    """What is found, and where below the store; a check counts it, and writes nothing."""
    before = files_in(path)
    totals = Totals()
    found = check_store(str(path), totals=totals)
    assert found is not None
    told = [(finding.severity, Path(finding.path), finding.reason) for finding in found]
    severities = [severity for severity, _, _ in told]
    assert (totals.damage, totals.notes) == (severities.count("damage"), severities.count("note"))
    assert files_in(path) == before
    assert all(reason for _, _, reason in told)
    return [(severity, str(place.relative_to(path))) for severity, place, _ in told]


def files_in(path: Path) -> dict[Path, bytes | None]:
    """(LMDB's readers note themselves in its lock file.)"""
    return {
        file: file.read_bytes() if file.is_file() else None
        for file in path.rglob("*")
        if file.name != "lock.mdb"
    }


def repaired(path: Path) -> Sequence[str]:
    """The kinds of what a repair does; afterwards nothing is found."""
    kinds = [step.kind for step in repair(path)]
    assert findings(path) == []
    return kinds


def names(path: Path) -> list[str]:
    with logstore.open(path, maintenance_interval=None) as store:
        return [topic.name for topic in store.topics()]


def remove_meta(path: Path) -> None:
    shutil.rmtree(path / "meta")


def empty_meta(path: Path) -> None:
    (path / "meta" / "data.mdb").write_bytes(b"")


def overwrite_meta(path: Path) -> None:
    (path / "meta" / "data.mdb").write_bytes(b"\xa5" * 40_000)


def cut_meta(path: Path) -> None:
    data = path / "meta" / "data.mdb"
    data.write_bytes(data.read_bytes()[: 3 * 4096])


def test_a_whole_store_holds(path: Path, tmp_path: Path) -> None:
    assert findings(path) == []
    logstore.open(tmp_path / "new").close()
    assert findings(tmp_path / "new") == []
    with logstore.open(path, maintenance_interval=None):
        assert findings(path) == []


@pytest.mark.parametrize("lose", [remove_meta, empty_meta, overwrite_meta, cut_meta])
def test_lost_definitions_are_damage(path: Path, lose: Callable[[Path], None]) -> None:
    lose(path)
    assert findings(path) == [("damage", "meta/data.mdb")]
    repaired(path)
    assert names(path) == ["orders", "other"]


def test_definitions_that_lost_their_log_are_damage(path: Path) -> None:
    with PartitionLog(path / "topics" / "__metadata-0") as log:
        log.truncate(1)
    assert findings(path) == [("damage", "topics/__metadata-0")]
    repaired(path)
    shutil.rmtree(path / "topics" / "__metadata-0")
    assert findings(path) == [("damage", "topics/__metadata-0")]
    repaired(path)
    assert names(path) == ["orders", "other"]


def test_both_lost_is_damage(path: Path) -> None:
    remove_meta(path)
    shutil.rmtree(path / "topics" / "__metadata-0")
    assert findings(path) == [("damage", "meta/data.mdb")]
    repaired(path)
    assert names(path) == ["orders", "other"]


def test_damage_in_the_log_of_the_definitions_is_told_once(path: Path) -> None:
    log = path / "topics" / "__metadata-0" / f"{0:020d}.log"
    data = bytearray(log.read_bytes())
    data[-3] ^= 1
    log.write_bytes(data)
    assert findings(path) == [("damage", f"topics/__metadata-0/{log.name}")]


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b'{"format_version": 1}'])
def test_a_lost_description_is_damage_and_made_anew(path: Path, content: bytes | None) -> None:
    before = (path / "store.json").read_bytes()
    if content is None:
        (path / "store.json").unlink()
    else:
        (path / "store.json").write_bytes(content)
    assert findings(path) == [("damage", "store.json")]
    planned = [step.kind for step in repair(path, dry_run=True)]
    with pytest.raises((StoreNotFoundError, FormatError)):
        logstore.open(path, create=False)
    assert repaired(path) == planned == (["build"] if content is None else ["aside", "build"])
    assert names(path) == ["orders", "other"]
    assert (path / "store.json").read_bytes() != before


def test_a_store_of_another_version_is_no_damage_and_not_repaired(path: Path) -> None:
    description = path / "store.json"
    description.write_bytes(
        description.read_bytes().replace(b'"format_version": 1', b'"format_version": 2')
    )
    remove_meta(path)
    assert findings(path) == [("note", "store.json")]
    (step,) = repair(path)
    assert step.kind == "failed"
    assert "another version" in step.reason


def test_what_a_restore_left_unfinished_is_no_store(path: Path, tmp_path: Path) -> None:
    with logstore.open(path, maintenance_interval=None) as store:
        store.backup(tmp_path / "backups")
    logstore.restore(tmp_path / "backups", tmp_path / "restored")
    assert findings(tmp_path / "restored") == []
    (tmp_path / "restored" / "store.json").unlink()
    assert findings(tmp_path / "restored") == []
    assert list(repair(tmp_path / "restored")) == []


def test_a_partition_without_a_directory_is_made_by_a_repair_or_an_opening(path: Path) -> None:
    for make in (repaired, names):
        shutil.rmtree(path / "topics" / "orders-1")
        assert findings(path) == [("note", "topics/orders-1")]
        with logstore.open(path, read_only=True) as reader:
            described = reader.describe_topic("orders").partitions
            assert [found.log_end_offset for found in described] == [0, 0, 1]
            with pytest.raises(FileNotFoundError, match="whoever opens the store to write"):
                reader.topic("orders").partition(1)
        make(path)
        assert findings(path) == []
        with logstore.open(path, read_only=True) as reader:
            assert reader.topic("orders").partition(1).log_end_offset == 0


def test_an_opening_survives_that_a_directory_cannot_be_made(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(path / "topics" / "orders-1")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PartitionFiles, "make", full)
    with logstore.open(path, maintenance_interval=None) as store:
        assert [topic.name for topic in store.topics()] == ["orders", "other"]


def test_a_partition_that_no_topic_has_is_a_note(path: Path) -> None:
    shutil.copytree(path / "topics" / "other-0", path / "topics" / "other-7")
    shutil.copytree(path / "topics" / "other-0", path / "topics" / "stray-0")
    assert findings(path) == [("note", "topics/other-7"), ("note", "topics/stray-0")]
    assert list(repair(path)) == []


def test_a_topic_on_its_way_out_is_not_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with logstore.open(path, maintenance_interval=None) as store:
        monkeypatch.setattr(TopicCatalogue, "finish_deletions", lambda *_, **__: None)
        store.delete_topic("orders")
        assert (path / "topics" / "orders-0").is_dir()
        assert findings(path) == []


def test_partitions_of_a_broker_in_a_new_store_are_notes_until_they_are_defined(
    tmp_path: Path,
) -> None:
    path = tmp_path / "store"
    logstore.open(path).close()
    for name in ("v2-zstd-0", "v2-none-0"):
        ignored = shutil.ignore_patterns("*.json")
        shutil.copytree(GOLDEN / name, path / "topics" / name, ignore=ignored)
    assert findings(path) == [("note", "topics/v2-none"), ("note", "topics/v2-zstd")]
    assert repaired(path) == ["build", "build"]
    assert names(path) == ["v2-none", "v2-zstd"]


def test_what_is_no_store_is_checked_as_ever(tmp_path: Path) -> None:
    assert check_store(str(tmp_path)) is None
    assert findings(GOLDEN) == []
