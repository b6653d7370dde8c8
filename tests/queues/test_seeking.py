"""What a queue keeps of what is settled, and seeking in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import logstore
from logstore import Store
from logstore.config import LogConfig
from logstore.errors import InvalidInputError, LockTimeoutError, PreconditionFailedError
from logstore.queues import seeking
from logstore.queues.definitions import QueueArguments
from logstore.queues.message import Message
from logstore.queues.queue_face import Queue
from logstore.queues.queue_upkeep import Upkeep
from logstore.queues.retention import due_segments, keeps_settled, log_config
from logstore.queues.seeking import runs_there
from logstore.retention import SegmentInfo

from .support import (
    NAME,
    ToldClock,
    bodies,
    drain,
    image,
    numbered,
    opened,
    publish,
    restarted,
    wait_until,
    work_queue,
)

SMALL = LogConfig(segment_bytes=600, retention_ms=-1, file_delete_delay_ms=0)


@pytest.fixture
def clock() -> ToldClock:
    return ToldClock()


@pytest.fixture
def store(tmp_path: Path, clock: ToldClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr("logstore.queues.open_queues.LOG_CONFIG", SMALL)
    with opened(tmp_path / "store", clock=clock) as store:
        yield store


def fill(store: Store, count: int, start: int = 0, **given: Any) -> list[bytes]:
    """Publish messages one by one, about four to a segment."""
    published = [b"%d" % number + b"." * 100 for number in range(start, start + count)]
    for body in published:
        publish(store, body, **given)
    return published


def segments(store: Store) -> int:
    return len(work_queue(store).level(0).log.segments)


def drop_settled(store: Store) -> int:
    return Upkeep(work_queue(store)).drop_settled()


# Retention ----------------------------------------------------------------------------------


def info(base: int, *, age: int, size: int = 100) -> SegmentInfo:
    return SegmentInfo(base, base + 10, size, 10_000 - age, False)


@pytest.mark.parametrize(
    ("arguments", "due"),
    [
        ({}, [0, 10, 20]),
        ({"retention_ms": 0}, [0, 10, 20]),
        ({"retention_bytes": 0}, [0, 10, 20]),
        ({"retention_ms": -1}, []),
        ({"retention_bytes": -1}, []),
        ({"retention_ms": 200}, [0, 10]),
        ({"retention_ms": 300}, [10]),
        ({"retention_bytes": 100}, [0, 10]),
        ({"retention_bytes": 101}, [0]),
        ({"retention_bytes": 300}, []),
        ({"retention_ms": 300, "retention_bytes": 100}, [0, 10]),
        ({"retention_ms": 300, "retention_bytes": -1}, [10]),
    ],
)
def test_settled_segments_go_by_age_and_by_size(arguments: dict[str, int], due: list[int]) -> None:
    settled = [info(0, age=300), info(10, age=301), info(20, age=100)]
    assert due_segments(settled, QueueArguments.of(arguments), now_ms=10_000) == due


def test_segments_are_small_beside_what_is_kept() -> None:
    base = LogConfig()
    assert log_config(QueueArguments(), base) is base
    assert log_config(QueueArguments(retention_ms=-1), base) == base
    assert log_config(QueueArguments(retention_ms=5000), base).segment_ms == 5000
    assert log_config(QueueArguments(retention_bytes=8 << 20), base).segment_bytes == 1 << 20
    assert log_config(QueueArguments(retention_bytes=1), base).segment_bytes == 64 << 10
    assert not keeps_settled(QueueArguments(retention_ms=0, retention_bytes=5))


def test_what_is_acknowledged_is_gone_by_default_and_kept_by_retention(
    store: Store, clock: ToldClock
) -> None:
    queue = store.queue(NAME)
    fill(store, 20)
    drain(queue)
    assert drop_settled(store) > 2
    assert segments(store) == 1
    store.queue("kept", retention_ms=5000)
    fill(store, 20, queue="kept")
    drain(store.queue("kept"))
    upkeep = Upkeep(work_queue(store, "kept"))
    assert upkeep.drop_settled() == 0
    clock.ahead_ms += 6000
    assert upkeep.drop_settled() > 2


def test_a_message_that_is_not_settled_keeps_its_segment_and_no_other(
    store: Store, clock: ToldClock
) -> None:
    queue = store.queue(NAME, retention_ms=5000)
    fill(store, 20)
    held = queue.get_many(20)
    for message in held[:9] + held[10:]:
        message.ack()
    held[0][0].channel.flush()
    clock.ahead_ms += 6000
    before = segments(store)
    assert drop_settled(store) == before - 2
    assert work_queue(store).check() == []


def test_maintenance_lets_go_of_what_nobody_has_looked_at_for_long(
    store: Store, clock: ToldClock, tmp_path: Path
) -> None:
    queue = store.queue(NAME, retention_ms=5000)
    fill(store, 20)
    drain(queue)
    store.close()
    clock.ahead_ms += 6000
    with opened(tmp_path / "store", clock=clock) as again:
        assert not again.queues._opened.in_use()
        again.maintain()
        assert segments(again) == 1


# Seeking ------------------------------------------------------------------------------------


def test_seeking_back_delivers_again_what_was_acknowledged(store: Store) -> None:
    queue = store.queue(NAME, retention_ms=-1)
    fill(store, 8)
    published = drain(queue)
    fill(store, 1, start=8)
    (sought,) = queue.seek(3, dry_run=True)
    assert sought == (0, 3, 5, 0, 0)
    assert queue.counts().ready == 1
    assert queue.seek(3) == [sought]
    assert queue.counts().ready == 6
    found = queue.get_many(10)
    assert bodies(found)[:5] == published[3:]
    assert [message.redelivered for message in found] == [True] * 5 + [False]
    assert [message.delivery_count for message in found] == [1] * 5 + [0]
    assert work_queue(store).check() == []


@pytest.mark.parametrize(
    ("where", "offset"),
    [
        ({"offset": "earliest"}, 0),
        ({"shift_by": -2}, 4),
        ({"time_ms": 0}, 0),
        ({"offset": 5}, 5),
    ],
)
def test_one_seeks_to_offsets_times_and_ends(
    store: Store, where: dict[str, Any], offset: int
) -> None:
    queue = store.queue(NAME, retention_ms=-1)
    published = fill(store, 6)
    drain(queue)
    (sought,) = queue.seek(**where)
    assert (sought.offset, sought.returned) == (offset, 6 - offset)
    assert drain(queue) == published[offset:]


def test_one_seeks_to_the_time_of_publishing(store: Store, clock: ToldClock) -> None:
    queue = store.queue(NAME, retention_ms=-1)
    fill(store, 3)
    clock.ahead_ms += 5000
    moment = clock.now_ms()
    later = fill(store, 2, start=3)
    drain(queue)
    queue.seek(time_ms=moment)
    assert drain(queue) == later
    (sought,) = queue.seek(time_ms=moment + 60_000)  # there is nothing so late: the end
    assert (sought.offset, sought.returned, sought.skipped) == (5, 0, 0)


def test_seeking_forward_counts_as_acknowledging(store: Store) -> None:
    queue = store.queue(NAME)
    published = fill(store, 10)
    queue.get_many(3)[1].nack()  # two are held, one has come back
    (sought,) = queue.seek(7)
    assert sought == (0, 7, 0, 5, 0)
    assert queue.counts()[:2] == (3, 2)
    queue.seek("latest")
    assert queue.counts()[:2] == (0, 2)
    assert drain(queue) == []
    queue.seek(shift_by=-3)
    assert drain(queue) == published[7:]


def test_what_consumers_hold_stays_theirs(store: Store) -> None:
    queue = store.queue(NAME, retention_ms=-1)
    published = fill(store, 6)
    held = queue.get_many(6)
    held[0].ack(flush=True)
    held[3].ack(flush=True)
    (sought,) = queue.seek("earliest")
    assert (sought.returned, sought.in_flight) == (2, 4)
    assert drain(queue) == [published[0], published[3]]
    held[1].ack(flush=True)  # no lease has ended
    held[2].nack()
    assert drain(queue) == [published[2]]
    assert work_queue(store).check() == []


def test_only_what_the_log_still_has_comes_back(store: Store, clock: ToldClock) -> None:
    queue = store.queue(NAME, retention_ms=5000)
    fill(store, 30)
    messages = queue.get_many(30)
    kept = messages[12]
    for message in messages:
        if message is not kept:
            message.ack()
    messages[0][0].channel.flush()
    clock.ahead_ms += 6000
    drop_settled(store)
    (level,) = work_queue(store).levels()
    log = level.log
    runs = runs_there(log, 0, 30)
    there: list[int] = []
    offset = log.log_start_offset
    while (fetch := log.read(offset)).data:
        there += [record.offset for record in fetch.records() if record.offset >= offset]
        offset = fetch.next_offset
    assert [one for run in runs for one in range(*run)] == there
    assert len(runs) == 2
    (sought,) = queue.seek("earliest")
    assert sought.returned == len(there) - 1
    assert len(drain(queue)) == sought.returned
    assert work_queue(store).check() == []


def test_priorities_have_offsets_of_their_own(store: Store) -> None:
    queue = store.queue(NAME, max_priority=1, retention_ms=-1)
    publish(store, b"low")
    publish(store, b"high", priority=1)
    drain(queue)
    with pytest.raises(InvalidInputError, match="say which one, from 0 to 1"):
        queue.seek(0)
    with pytest.raises(InvalidInputError, match="say which one, from 0 to 1"):
        queue.seek(shift_by=-1)
    (sought,) = queue.seek(0, priority=1)
    assert (sought.level, sought.returned) == (1, 1)
    assert drain(queue) == [b"high"]
    assert [one.returned for one in queue.seek("earliest")] == [1, 1]
    assert drain(queue) == [b"high", b"low"]


@pytest.mark.parametrize(
    ("where", "complaint"),
    [
        ({}, "given were none"),
        ({"offset": 1, "shift_by": 1}, "given were offset, shift_by"),
        ({"offset": "soon"}, "offset is a whole number, not 'soon'"),
        ({"offset": -1}, "offset=-1 names no place"),
        ({"shift_by": 0}, "shift_by=0 names no place"),
        ({"offset": 4}, "offset 4 is beyond the log's end, 3"),
        ({"shift_by": 1}, "offset 4 is beyond"),
        ({"offset": "earliest", "priority": 1}, "has the priorities 0 to 0, not 1"),
    ],
)
def test_a_place_that_is_none_is_refused(
    store: Store, where: dict[str, Any], complaint: str
) -> None:
    queue = store.queue(NAME)
    publish(store, *numbered(3))
    drain(queue)
    with pytest.raises(InvalidInputError, match=complaint):
        queue.seek(**where)
    assert queue.counts().ready == 0


@pytest.mark.parametrize("limit", [{"max_length": 4}, {"max_length_bytes": 4}])
def test_a_seek_that_would_fill_the_queue_too_full_is_refused(
    store: Store, limit: dict[str, int]
) -> None:
    queue = store.queue(NAME, **limit)
    for body in numbered(6):
        publish(store, body)
        drain(queue)
    for dry_run in (True, False):
        with pytest.raises(PreconditionFailedError, match="5 would be ready, more than max_length"):
            queue.seek(1, dry_run=dry_run)
    assert queue.counts().ready == 0
    queue.seek(2)
    assert drain(queue) == numbered(6)[2:]
    assert work_queue(store).check() == []


def test_a_seek_survives_a_power_cut(store: Store, tmp_path: Path) -> None:
    queue = store.queue(NAME, retention_ms=-1)
    published = fill(store, 8)
    drain(queue)
    queue.seek(5)
    with restarted(image(store, tmp_path / "left")) as left:
        assert drain(left.queue(NAME)) == published[5:]


def test_segments_stay_while_somebody_seeks(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = store.queue(NAME)
    fill(store, 20)
    drain(queue)
    with work_queue(store).keeping():
        assert drop_settled(store) == 0
        monkeypatch.setattr(seeking, "_PATIENCE_SECONDS", 0.0)
        with pytest.raises(LockTimeoutError, match="settled segments"):
            queue.seek("earliest")
    assert drop_settled(store) > 0


def test_a_consumer_of_another_handle_that_waits_is_woken(store: Store) -> None:
    queue = store.queue(NAME, retention_ms=-1)
    published = fill(store, 3)
    found: list[bytes] = []
    with opened(Path(store.path)) as other:

        def note(message: Message) -> None:
            found.append(message.body)
            message.ack()

        with other.queue(NAME).consume(note):
            wait_until(lambda: len(found) == 3)
            wait_until(lambda: not queue.counts().unacked)
            queue.seek("earliest")
            wait_until(lambda: len(found) == 6)
    assert found == published * 2


def test_a_store_that_is_only_read_can_be_asked(store: Store, tmp_path: Path) -> None:
    queue = store.queue(NAME, retention_ms=-1)
    fill(store, 3)
    drain(queue)
    with opened(tmp_path / "store", read_only=True) as reader:
        asked: Queue = reader.queue(NAME, passive=True)
        assert asked.seek("earliest", dry_run=True)[0].returned == 3
        with pytest.raises(logstore.ReadOnlyError):
            asked.seek("earliest")
