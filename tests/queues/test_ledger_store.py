"""Ledgers on disk: what a power cut, a restart and a copy of older files leave of them."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

import logstore
from logstore import FormatError
from logstore.queues.ledger_rows import Span
from logstore.queues.ledger_store import QUEUES, Checkpoint

from .support import (
    NAME,
    bodies,
    cut_log,
    drain,
    image,
    numbered,
    opened,
    publish,
    restarted,
    work_queue,
)


def checkpoint(store: logstore.Store) -> None:
    work_queue(store).checkpoint(tolerant=False)


def saved(store: logstore.Store) -> Checkpoint | None:
    (level,) = work_queue(store).levels()
    return work_queue(store).ledgers.saved(level.ledger.key)


def test_what_was_acknowledged_in_a_checkpoint_is_not_delivered_again(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        queue = store.queue(NAME)
        publish(store, *numbered(10), acks="all")
        messages = queue.get_many(6)
        for message in messages[:4]:
            message.ack()
        messages[3 - 1 + 2].nack()  # the fifth comes back
        checkpoint(store)
        messages[5].ack(flush=True)  # and this one is acknowledged after it
        left = image(store, tmp_path / "left")
    with restarted(left) as store:
        queue = store.queue(NAME)
        assert queue.counts().ready == 6
        again = queue.get_many(10)
        assert bodies(again) == numbered(6, 4)
        assert [message.redelivered for message in again] == [True, True] + [False] * 4
        assert work_queue(store).check() == []


def test_a_durable_acknowledgement_survives_a_power_cut(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        queue = store.queue(NAME)
        publish(store, *numbered(3))  # at acks=1: durable is about the acknowledgement
        first, second, third = queue.get_many(3)
        second.ack(durable=True)
        left = image(store, tmp_path / "left")
        first.ack(flush=True)
        third.ack()
    with restarted(left) as store:
        assert drain(store.queue(NAME)) == [b"0", b"2"]


def test_a_checkpoint_never_leads_the_log(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        queue = store.queue(NAME)
        publish(store, *numbered(5), acks=1)
        queue.get_many(5)[-1].ack(multiple=True, flush=True)
        (level,) = work_queue(store).levels()
        assert level.log.synced_offset == 0
        checkpoint(store)
        assert level.log.synced_offset == 5
        found = saved(store)
        assert found is not None
        assert (found.cursor, found.spans) == (5, [])


def test_the_later_of_two_checkpoints_stays(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as one, opened(tmp_path / "store") as two:
        one.queue(NAME)
        publish(one, *numbered(3))
        one.queue(NAME).get_many(1)[0].ack(flush=True)
        checkpoint(one)
        two.queue(NAME).get_many(1)[0].ack(flush=True)
        checkpoint(two)
        before = saved(two)
        assert before is not None
        with one._metadata.transaction(write=True) as meta:  # as a slow process would come late
            key = work_queue(one).levels()[0].ledger.key
            assert Checkpoint.unpack(meta.get(QUEUES.checkpoints, key) or b"") == before
        checkpoint(one)
        assert saved(one) == before


@pytest.mark.parametrize("again", [False, True])
def test_a_ledger_that_is_beyond_its_log_is_cut_back_before_anybody_appends(
    tmp_path: Path, again: bool
) -> None:
    with opened(tmp_path / "store") as store:
        queue = store.queue(NAME)
        publish(store, *numbered(100), acks="all")
        queue.get_many(90)[-1].ack(multiple=True, flush=True)
        queue.get_many(5)
        checkpoint(store)
        left = image(store, tmp_path / "left")
    directory = next((left / "queues").glob("*-0"))
    cut_log(directory, 0)  # somebody copied older files
    with restarted(left) as store:
        publish(store, *numbered(50, 500), acks="all")
        left = image(store, tmp_path / "again") if again else left
        if not again:
            assert drain(store.queue(NAME)) == numbered(50, 500)
    if again:  # nor do they count as acknowledged after another power cut
        with restarted(left, "3" * 36) as store:
            assert drain(store.queue(NAME)) == numbered(50, 500)


@pytest.mark.parametrize("kept", [0, 3])
@pytest.mark.parametrize("again", [False, True])
def test_a_ledger_whose_log_was_cut_under_it_is_cut_back(
    tmp_path: Path, kept: int, again: bool
) -> None:
    path = tmp_path / "store"
    with opened(path) as store:
        queue = store.queue(NAME)
        for body in numbered(20):
            publish(store, body, acks="all")
        queue.get_many(15)[1].ack(multiple=True, durable=True)
        queue.get_many(2)[-1].ack(flush=True)
    directory = next((path / "queues").glob("*-0"))
    expected = [b"2"][:kept] + numbered(5, 500)
    if kept:
        cut_log(directory, kept)
    else:
        shutil.rmtree(directory)
    with opened(path) as store:
        publish(store, *numbered(5, 500), acks="all")
        assert work_queue(store).check() == []
        if not again:
            assert drain(store.queue(NAME)) == expected
        left = image(store, tmp_path / "left")
    if again:  # nor does the checkpoint count what was published since as settled
        with restarted(left) as store:
            assert drain(store.queue(NAME)) == expected


def test_held_and_dead_messages_are_kept_by_a_checkpoint(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        queue = store.queue(NAME, dead_letter_exchange="nowhere")
        publish(store, b"later", acks="all", delay_ms=50_000)
        publish(store, b"bad", b"good", acks="all")
        assert bodies(queue.get_many(1)) == [b"bad"]
        assert queue.counts().delayed == 1
        checkpoint(store)
        left = image(store, tmp_path / "left")
    with restarted(left) as store:
        queue = store.queue(NAME)
        assert drain(queue) == [b"bad", b"good"]
        assert queue.counts()[:4] == (0, 0, 0, 1)
        assert work_queue(store).check() == []


def test_transient_messages_are_gone_after_a_restart(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        store.queue(NAME)
        publish(store, b"transient", delivery_mode=1)
        publish(store, b"persistent", delivery_mode=2, acks="all")
        publish(store, b"transient", delivery_mode=1)
        (level,) = work_queue(store).levels()
        level.log.flush()  # they got to the disk, as it happened
        left = image(store, tmp_path / "left")
    with restarted(left) as store:
        queue = store.queue(NAME)
        publish(store, b"young", delivery_mode=1)
        assert drain(queue) == [b"persistent", b"young"]
        assert queue.counts().ready == 0


def test_a_kill_loses_nothing_that_was_flushed(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        queue = store.queue(NAME)
        publish(store, *numbered(10))
        messages = queue.get_many(10)
        messages[4].ack(multiple=True, flush=True)
        # The disk as a kill leaves it, all of it: the kernel has it.
        with opened(tmp_path / "store") as other:
            counts = other.queue(NAME).counts()
            assert (counts.ready, counts.unacked) == (0, 5)


@pytest.mark.parametrize("seed", range(6))
def test_power_cuts_lose_nothing_that_was_confirmed(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    path = tmp_path / "0"
    confirmed: set[bytes] = set()
    """Published at acks=all, and not acknowledged in a checkpoint."""
    acked: set[bytes] = set()
    settled: set[bytes] = set()
    """Acknowledged, and then in a checkpoint: these must not come again."""
    number = 0
    for boot in range(4):
        with restarted(path, f"{boot}" * 36) as store:
            queue = store.queue(NAME)
            for _ in range(rng.randrange(5, 30)):
                action = rng.choice(("publish", "publish", "get", "get", "ack", "checkpoint"))
                if action == "publish":
                    new = numbered(rng.randrange(1, 8), number)
                    number += len(new)
                    acks = rng.choice((1, "all"))
                    publish(store, *new, acks=acks)
                    if acks == "all":
                        confirmed |= set(new)
                elif action == "checkpoint":
                    checkpoint(store)
                    settled |= acked
                else:
                    for message in queue.get_many(rng.randrange(1, 6)):
                        assert message.body not in settled
                        if action == "ack" or rng.random() < 0.5:
                            message.ack(flush=True)
                            acked.add(message.body)
                        elif rng.random() < 0.5:
                            message.nack()
            assert work_queue(store).check() == []
            path = image(store, tmp_path / f"{boot + 1}")
            acked = set(settled)  # what was acknowledged since the checkpoint may come again
    with restarted(path, "9" * 36) as store:
        queue = store.queue(NAME)
        publish(store, b"last", acks="all")
        found = drain(queue)
        assert len(found) == len(set(found))
        assert not settled.intersection(found)
        assert confirmed - acked <= set(found)
        assert b"last" in found


def test_a_copy_of_a_store_begins_with_the_checkpoints(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        queue = store.queue(NAME)
        publish(store, *numbered(4), acks="all")
        queue.get_many(2)[1].ack(multiple=True, durable=True)
        queue.get_many(1)[0].ack(flush=True)
        store.backup(tmp_path / "backups")
        shutil.copytree(store.path, tmp_path / "copy", ignore=shutil.ignore_patterns("procs"))
    with opened(tmp_path / "copy") as store:
        assert drain(store.queue(NAME)) == [b"3"]  # a backup takes a checkpoint first
    logstore.restore(tmp_path / "backups", tmp_path / "restored")
    with opened(tmp_path / "restored") as store:
        assert drain(store.queue(NAME)) == [b"3"]


def test_a_store_that_is_only_read_shows_its_ledgers(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        queue = store.queue(NAME)
        publish(store, *numbered(4), acks="all")
        queue.get_many(2)[0].ack(durable=True)
        left = image(store, tmp_path / "left")
        with opened(tmp_path / "store", read_only=True) as reader:
            assert reader.queue(NAME).counts()[:2] == (2, 1)
            assert bodies(reader.queue(NAME).peek(9)) == [b"2", b"3"]
    with opened(left, read_only=True) as reader:
        assert bodies(reader.queue(NAME).peek(9)) == [b"1", b"2", b"3"]
        assert reader.queue(NAME).counts()[:2] == (3, 0)
        with pytest.raises(logstore.ReadOnlyError):
            reader.queue(NAME).get()
        with pytest.raises(logstore.ReadOnlyError):
            reader.queue(NAME).purge()


def test_a_deleted_queue_leaves_nothing_behind(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        queue = store.queue(NAME)
        publish(store, *numbered(4), acks="all")
        queue.get_many(2)[0].ack(durable=True)
        work = work_queue(store)
        queue.delete()
        with pytest.raises(logstore.UnknownQueueError):
            queue.get()
        assert (
            work.ledgers.read(lambda rows, consumers: [*rows.items(b""), *consumers.items(b"")])
            == []
        )
        with store._metadata.transaction() as meta:
            assert list(meta.items(QUEUES.checkpoints)) == []
        younger = store.queue(NAME)
        assert younger.counts() == (0, 0, 0, 0, 0)


def test_a_broken_checkpoint_is_an_error_that_says_so() -> None:
    good = Checkpoint(3, 9, 4, [Span(1, 2, 0), Span(5, 1, 2, 1)])
    assert Checkpoint.unpack(good.pack()) == good
    assert good.cut(2) == Checkpoint(3, 2, 4, [Span(1, 1, 0)])
    with pytest.raises(FormatError, match="checkpoint is broken"):
        Checkpoint.unpack(good.pack()[:-1])
