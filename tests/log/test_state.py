"""The shared state: what survives, what is recognised as foreign, torn or broken."""

from __future__ import annotations

import dataclasses
import shutil
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logstore.segments.files import DiskFiles
from logstore.segments.indexing import IndexProgress
from logstore.state import CLEAN, POISONED, STATE_BYTES, Checkpoint, LogState, Marks, StateFile

from .support import BOOT, OTHER_BOOT

big = st.integers(-1, (1 << 63) - 1)
small = st.integers(0, (1 << 32) - 1)
states = st.builds(
    LogState,
    generation=st.integers(0, (1 << 63) - 1),
    active_base=big,
    valid_end=big,
    log_start_offset=big,
    next_offset=big,
    last_stable_offset=big,
    synced_offset=big,
    first_timestamp=big,
    progress=st.builds(IndexProgress, big, small, small, big, big, big),
    leader_epoch=st.integers(-1, (1 << 31) - 1),
    due_epoch=st.integers(0, (1 << 31) - 1),
    flags=st.sampled_from([0, POISONED, CLEAN]),
)


def state_file(path: Path, boot: str = BOOT) -> StateFile:
    return StateFile(DiskFiles().share(str(path), STATE_BYTES), boot)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state"


SOME = LogState(generation=6, active_base=10, valid_end=500, next_offset=17, flags=POISONED)
CHECKPOINT = Checkpoint(10, 500, 17, 1000, IndexProgress(100, 2, 1, 900, 1000, 16))
MARKS = Marks(clean=True, due_epoch=7, lowest_end=3)


@given(states)
def test_a_state_is_read_as_it_was_written(state: LogState) -> None:
    assert LogState.unpack(state.pack()) == state


@given(states, st.data())
def test_a_torn_state_is_recognised(state: LogState, data: st.DataObject) -> None:
    block = bytearray(state.pack())
    position = data.draw(st.integers(0, len(block) - 1))
    block[position] ^= data.draw(st.integers(1, 255))
    assert LogState.unpack(bytes(block)) is None


@given(states, states, st.data())
def test_a_mixture_of_two_states_is_one_of_them_or_nothing(
    old: LogState, new: LogState, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(old.pack())))
    found = LogState.unpack(new.pack()[:cut] + old.pack()[cut:])
    assert found in (None, old, new)


def test_the_file_has_one_size_and_one_inode(path: Path) -> None:
    first = state_file(path)
    inode = path.stat().st_ino
    assert path.stat().st_size == STATE_BYTES
    first.publish(SOME)
    first.save_checkpoint(CHECKPOINT, MARKS)
    first.drop_checkpoint()
    first.close()
    first.close()
    assert (path.stat().st_size, path.stat().st_ino) == (STATE_BYTES, inode)


def test_what_one_publishes_all_others_see(path: Path) -> None:
    one, two = state_file(path), state_file(path)
    block = one.publish(SOME)
    assert two.block() == block
    assert LogState.unpack(two.block()) == SOME
    assert two.generation() == 6
    two.publish(LogState(generation=8))
    assert one.generation() == 8
    one.close()
    two.close()


def test_a_state_is_ours_once_it_was_adopted_until_the_machine_restarts(path: Path) -> None:
    state = state_file(path)
    assert not state.is_ours()
    state.adopt()
    assert state.is_ours()
    assert state_file(path).is_ours()
    assert not state_file(path, OTHER_BOOT).is_ours()


def test_a_copied_state_is_not_ours(path: Path, tmp_path: Path) -> None:
    state = state_file(path)
    state.adopt()
    state.publish(SOME)
    state.save_checkpoint(CHECKPOINT, MARKS)
    copy = Path(shutil.copy(path, tmp_path / "copy"))
    assert not state_file(copy).is_ours()
    assert state_file(copy).checkpoint() is None
    path.rename(tmp_path / "moved")
    assert state_file(tmp_path / "moved").is_ours()


def test_a_checkpoint_outlives_a_restart_but_not_a_broken_byte(path: Path) -> None:
    state = state_file(path)
    assert state.checkpoint() is None
    state.adopt()
    state.save_checkpoint(CHECKPOINT, MARKS)
    assert state_file(path, OTHER_BOOT).checkpoint() == CHECKPOINT
    assert state_file(path, OTHER_BOOT).marks() == MARKS
    end = 1024 + struct.calcsize("<8s5qII3qIiq") + 4
    for position in range(1024, end):
        data = bytearray(path.read_bytes())
        data[position] ^= 1
        path.write_bytes(data)
        assert state_file(path).checkpoint() is None, position
        assert state_file(path).marks() == Marks(), position
        data[position] ^= 1
        path.write_bytes(data)
    assert state_file(path).checkpoint() == CHECKPOINT
    state.save_marks(Marks(due_epoch=9))
    assert (state.checkpoint(), state.marks()) == (CHECKPOINT, Marks(due_epoch=9))
    state.drop_checkpoint(lowest_end=4)
    assert (state.checkpoint(), state.marks()) == (None, Marks(due_epoch=9, lowest_end=4))


def test_of_an_untrusted_state_generation_poison_and_due_epoch_are_left(path: Path) -> None:
    state = state_file(path)
    state.adopt()
    state.publish(dataclasses.replace(SOME, due_epoch=4, flags=POISONED | CLEAN))
    assert state.leftover() == LogState(generation=6, due_epoch=4, flags=POISONED)
    assert state.leftover(known_generation=40).generation == 40
    # After a restart the disk, not the cache, says what is there: there is no poison.
    assert state_file(path, OTHER_BOOT).leftover() == LogState(generation=6)
    with open(path, "r+b") as file:
        file.seek(128 + 20)
        file.write(b"\xff")
    # Nobody knows any more how far it had come, so it goes where nobody can have seen it.
    left = state.leftover(known_generation=40)
    assert left == LogState(generation=left.generation)
    assert left.generation > 1 << 16


@pytest.mark.parametrize("rubbish", [b"\xff" * 8, b"\x7f" * 8, bytes(8)])
def test_a_generation_out_of_rubbish_can_still_be_counted_on(path: Path, rubbish: bytes) -> None:
    state = state_file(path)
    with open(path, "r+b") as file:
        file.seek(128)
        file.write(rubbish)
    generation = state.leftover().generation
    assert 0 <= generation < 1 << 62
    state.publish(LogState(generation=(generation + 2) & ~1))
