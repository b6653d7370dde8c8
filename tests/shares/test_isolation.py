"""Share groups that read committed records alone (share.isolation.level)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from logstore import InvalidInputError, OffsetReset, Store
from logstore.segments.control import ControlType

from .support import (
    GROUP,
    TOPIC,
    described,
    end,
    numbered,
    opened,
    produce,
    sharing,
    transact,
    values,
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with opened(tmp_path / "store") as store:
        store.create_topic(TOPIC, segment_bytes=2000)
        store.share_groups.alter(
            GROUP, share_auto_offset_reset="earliest", share_isolation_level="read_committed"
        )
        yield store


def test_aborted_records_are_passed_over_and_committed_ones_delivered(store: Store) -> None:
    transact(store, 1, b"c0")
    transact(store, 2, b"a0", b"a1")
    produce(store, b"plain")
    transact(store, 1, b"c1")
    end(store, 2, ControlType.ABORT)
    transact(store, 2, b"c2")
    end(store, 1, ControlType.COMMIT)
    end(store, 2, ControlType.COMMIT)
    with sharing(store) as consumer:
        found = consumer.poll()
        assert values(found) == [b"c0", b"plain", b"c1", b"c2"]
        for record in found:
            record.accept()
    assert (described(store).lag, described(store).acquired) == (0, 0)
    with sharing(store, group="others") as consumer:  # reads what is uncommitted, too
        assert values(consumer.poll()) == [b"c0", b"a0", b"a1", b"plain", b"c1", b"c2"]


def test_nothing_is_delivered_from_the_first_open_transaction_on(store: Store) -> None:
    produce(store, b"0")
    transact(store, 1, b"open")
    produce(store, b"1")
    with sharing(store) as consumer:
        assert values(consumer.poll()) == [b"0"]
        consumer.commit()
        assert described(store).end_offset == 1
        for record in consumer._registration.fetched:
            record.accept()
        assert consumer.poll() == []
        end(store, 1, ControlType.COMMIT)
        assert values(consumer.poll(timeout=30)) == [b"open", b"1"]


def test_a_log_of_aborted_records_alone_ends_a_poll(store: Store) -> None:
    for producer in range(3):
        transact(store, producer, *numbered(20))
        end(store, producer, ControlType.ABORT)
    with sharing(store) as consumer:
        assert consumer.poll(5) == []
        assert described(store).lag == 0
        produce(store, b"next")
        assert values(consumer.poll(timeout=30)) == [b"next"]


def test_a_group_that_is_set_back_knows_of_what_lies_there(store: Store) -> None:
    transact(store, 1, b"a0")
    end(store, 1, ControlType.ABORT)
    produce(store, b"0")
    for _ in range(2):
        with sharing(store) as consumer:
            [record] = consumer.poll()
            assert record.value == b"0"
            record.accept()
        store.share_groups.reset_offsets(GROUP, OffsetReset("earliest"))
    with opened(Path(store.path)) as other, sharing(other) as consumer:
        assert values(consumer.poll()) == [b"0"]


def test_a_rejected_record_of_a_transaction_is_no_way_round_it(store: Store) -> None:
    """A dead letter tells of an aborted record, and does not show it."""
    store.create_topic("dlq")
    store.share_groups.alter(
        GROUP, errors_deadletterqueue_topic_name="dlq", share_isolation_level="read_uncommitted"
    )
    transact(store, 1, b"secret")
    with sharing(store) as consumer:
        [record] = consumer.poll()
        end(store, 1, ControlType.ABORT)
        store.share_groups.alter(GROUP, share_isolation_level="read_committed")
        record.reject()
    store.maintain()
    [letter] = store.topic("dlq").partition(0).read(0).records()
    assert letter.value is None


def test_the_level_can_be_altered_while_consumers_read(store: Store) -> None:
    transact(store, 1, b"open")
    with sharing(store) as consumer:
        assert consumer.poll() == []
        store.share_groups.alter(GROUP, share_isolation_level="read_uncommitted")
        [record] = consumer.poll(timeout=30)
        assert record.value == b"open"
        record.accept(flush=True)
        store.share_groups.alter(GROUP, share_isolation_level="read_committed")
        produce(store, b"behind it")
        assert values(consumer.poll()) == [b"behind it"]  # of what is in front nothing is left
    with pytest.raises(InvalidInputError, match="is none of 'read_uncommitted'"):
        store.share_groups.alter(GROUP, share_isolation_level="serializable")


@pytest.mark.parametrize("seed", range(6))
def test_any_interleaving_delivers_what_was_committed_and_nothing_else(
    store: Store, seed: int
) -> None:
    rng = random.Random(seed)
    pending: dict[int, list[bytes]] = {}
    committed: list[bytes] = []
    found: list[bytes | None] = []
    number = 0
    with sharing(store) as consumer:
        for _ in range(80):
            number += 1
            producer = rng.randrange(3)
            match rng.randrange(5):
                case 0:
                    produce(store, b"%d" % number)
                    committed.append(b"%d" % number)
                case 1 | 2:
                    transact(store, producer, b"%d" % number)
                    pending.setdefault(producer, []).append(b"%d" % number)
                case 3 if producer in pending:
                    kind = rng.choice((ControlType.COMMIT, ControlType.ABORT))
                    end(store, producer, kind)
                    values_of = pending.pop(producer)
                    committed += values_of if kind == ControlType.COMMIT else []
                case _:
                    for record in consumer.poll(rng.randrange(1, 9)):
                        if rng.random() < 0.7:
                            found.append(record.value)
                            record.accept()
                        else:
                            record.release()
            assert set(found) <= set(committed)
        for producer in pending:
            end(store, producer, ControlType.ABORT)
        while records := consumer.poll():
            for record in records:
                found.append(record.value)
                record.accept()
    assert sorted(found, key=int) == sorted(committed, key=int)  # type: ignore[arg-type]
    assert described(store).lag == 0
