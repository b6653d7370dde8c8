"""Lags of a broker's groups, from commits as Kafka writes them."""

from __future__ import annotations

import struct
from pathlib import Path

from logstore.inspect.broker_groups import Commit, broker_group_lags, committed_offsets
from logstore.inspect.sources import find_partitions
from logstore.inspect.statistics import Statistics
from logstore.inspect.walking import Trouble
from logstore.segments.batch import encode_batch
from logstore.segments.files import DiskFiles
from logstore.segments.record import Record

COMMIT, ABORT = 1, 0


def text(value: str) -> bytes:
    return struct.pack(">h", len(value.encode())) + value.encode()


def commit(group: str, partition: int, offset: int | None, *, version: int = 1) -> Record:
    key = struct.pack(">h", version) + text(group) + text("orders") + struct.pack(">i", partition)
    value = None if offset is None else struct.pack(">hqih", 3, offset, -1, 0) + bytes(8)
    return Record(timestamp=1, key=key, value=value)


def marker(kind: int) -> list[Record]:
    return [Record(timestamp=1, key=struct.pack(">hh", 0, kind), value=struct.pack(">hi", 0, 0))]


class Offsets:
    """A partition of ``__consumer_offsets``, written batch by batch."""

    def __init__(self, logs: Path, number: int) -> None:
        self._path = logs / f"__consumer_offsets-{number}"
        self._path.mkdir(parents=True)
        self._next = 0

    def add(self, records: list[Record], *, producer: int = -1, control: bool = False) -> None:
        data = encode_batch(
            records,
            base_offset=self._next,
            producer_id=producer,
            producer_epoch=0 if producer >= 0 else -1,
            transactional=producer >= 0,
            control=control,
        )
        self._next += len(records)
        with (self._path / f"{0:020d}.log").open("ab") as file:
            file.write(data)


def read(logs: Path) -> tuple[dict[Commit, int], list[Trouble]]:
    troubles: list[Trouble] = []
    return committed_offsets(DiskFiles(), str(logs), trouble=troubles.append), troubles


def test_the_last_commit_counts_and_a_tombstone_takes_it_away(tmp_path: Path) -> None:
    one, other = Offsets(tmp_path, 0), Offsets(tmp_path, 7)
    one.add([commit("billing", 0, 3), commit("gone", 0, 9), commit("billing", 0, 5)])
    one.add([commit("gone", 0, None), commit("billing", 1, 8, version=0)])
    other.add([commit("größe", 0, 2)])
    found, troubles = read(tmp_path)
    assert found == {
        Commit("billing", "orders", 0): 5,
        Commit("billing", "orders", 1): 8,
        Commit("größe", "orders", 0): 2,
    }
    assert troubles == []


def test_what_a_transaction_commits_counts_from_its_marker_on(tmp_path: Path) -> None:
    offsets = Offsets(tmp_path, 0)
    offsets.add([commit("kept", 0, 1)], producer=1)
    offsets.add([commit("dropped", 0, 2)], producer=2)
    offsets.add([commit("open", 0, 3)], producer=3)
    offsets.add([commit("kept", 0, 4)])
    offsets.add(marker(COMMIT), producer=1, control=True)
    offsets.add(marker(ABORT), producer=2, control=True)
    found, _ = read(tmp_path)
    assert found == {Commit("kept", "orders", 0): 1}


def test_other_records_say_nothing_and_damage_is_told(tmp_path: Path) -> None:
    offsets = Offsets(tmp_path, 0)
    group = Record(timestamp=1, key=struct.pack(">h", 2) + text("billing"), value=b"members")
    short = commit("billing", 0, 1)
    cut = [short._replace(key=(short.key or b"")[:n]) for n in range(len(short.key or b""))]
    offsets.add([group, Record(timestamp=1, value=b"no key"), *cut])
    offsets.add([commit("billing", 0, 1)._replace(value=b"\0")])
    offsets.add([commit("billing", 0, 7)])
    path = tmp_path / "__consumer_offsets-0" / f"{0:020d}.log"
    assert read(tmp_path) == ({Commit("billing", "orders", 0): 7}, [])
    data = bytearray(path.read_bytes())
    data[30] ^= 1
    path.write_bytes(data)
    found, (trouble,) = read(tmp_path)
    assert found == {Commit("billing", "orders", 0): 7}
    assert trouble.path == str(path)


def test_lags_are_told_of_the_partitions_that_are_counted(tmp_path: Path) -> None:
    offsets = Offsets(tmp_path, 0)
    offsets.add([commit("billing", 0, 3), commit("billing", 1, 0), commit("audit", 0, 99)])
    (tmp_path / "orders-0").mkdir()
    records = [Record(timestamp=1, value=b"%d" % n) for n in range(5)]
    log = tmp_path / "orders-0" / f"{10:020d}.log"
    log.write_bytes(encode_batch(records, base_offset=10))
    statistics = Statistics()
    for partition in find_partitions([str(tmp_path / "orders-0")]):
        statistics.add(partition)
    lags = [(lag.group, lag.offset.lag) for lag in broker_group_lags(statistics)]
    assert lags == [("audit", 0), ("billing", 5)]  # what lies below its log is gone


def test_a_directory_that_is_no_brokers_has_none(tmp_path: Path) -> None:
    assert read(tmp_path) == ({}, [])
    assert read(tmp_path / "missing") == ({}, [])
