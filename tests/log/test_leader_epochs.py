"""A log whose leader epochs are given from outside, as a controller gives them to a leader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from logstore import InvalidInputError, PartitionLog
from logstore.segments.checkpoint import EpochEntry

from .support import batches, content, raw_batch, records


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "orders-0"


def test_the_next_batch_begins_the_epoch_that_was_given(directory: Path) -> None:
    with PartitionLog(directory) as log:
        log.append(records("a"))
        log.begin_leader_epoch(5)
        assert log.leader_epochs() == [EpochEntry(0, 0)]
        log.append(records("b"))
        log.append(records("c"))
        assert log.leader_epochs() == [EpochEntry(0, 0), EpochEntry(5, 1)]
        assert [batch.header.leader_epoch for batch in batches(log)] == [0, 5, 5]


def test_an_epoch_in_which_nothing_was_appended_leaves_no_trace(directory: Path) -> None:
    with PartitionLog(directory) as log:
        log.append(records("a"))
        log.begin_leader_epoch(3)
        log.begin_leader_epoch(4)
        log.append(records("b"))
        assert log.leader_epochs() == [EpochEntry(0, 0), EpochEntry(4, 1)]


def test_an_epoch_does_not_go_back(directory: Path) -> None:
    with PartitionLog(directory) as log:
        log.append_raw(raw_batch(0, "a", epoch=7), origin="replica")
        with pytest.raises(InvalidInputError, match="leader epoch 6 is out of bounds"):
            log.begin_leader_epoch(6)
        log.begin_leader_epoch(7)
        log.append(records("b"))
        assert log.leader_epochs() == [EpochEntry(7, 0)]
        with pytest.raises(InvalidInputError, match="out of bounds"):
            log.begin_leader_epoch(1 << 31)


def test_a_log_that_is_abandoned_is_recovered_like_one_of_a_killed_process(
    directory: Path,
) -> None:
    log = PartitionLog(directory)
    log.append(records("a", "b"), acks=1)
    log.abandon()
    with PartitionLog(directory) as again:
        assert content(again) == [(0, b"a"), (1, b"b")]
        again.begin_leader_epoch(9)
        again.append(records("c"))
        assert again.leader_epochs() == [EpochEntry(0, 0), EpochEntry(9, 2)]


def test_a_read_ends_at_the_offset_that_it_is_given(directory: Path) -> None:
    with PartitionLog(directory) as log:
        for value in ("a", "b", "c"):
            log.append(records(value))
        fetch = log.read(0, upto=2)
        assert [record.value for record in fetch.records()] == [b"a", b"b"]
        assert (fetch.high_watermark, fetch.log_end_offset) == (2, 3)
        assert log.read(2, upto=2).data == b""
        assert log.read(0, upto=99).high_watermark == 3
        wrongs: list[Any] = [-1, True, "soon"]
        for wrong in wrongs:
            with pytest.raises(InvalidInputError, match="upto is"):
                log.read(0, upto=wrong)
