"""Replays: what arrives, in what order and when; how they go on after any end; what they leave
alone."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import logstore
from logstore import Codec, ConsumerRecord
from logstore.errors import ChecksumError, InvalidInputError
from logstore.json_records import record_line
from logstore.replay.carrying import stamped
from logstore.replay.engine import Outcome, Replay
from logstore.replay.errors import ReplayError, UserCodeError
from logstore.replay.expressions import compile_expression
from logstore.replay.file_source import open_file
from logstore.replay.filters import Filters, change_headers
from logstore.replay.log_source import LogSource, open_directories
from logstore.replay.pace import OriginalPace, RatePace
from logstore.replay.resume import ResumeFile
from logstore.replay.sink import CountingSink, FileSink, FunctionSink, Sink
from logstore.replay.source import Range
from logstore.replay.topic_sink import TopicSink, parse_partition_map
from logstore.segments.batch import Batch, encode_batch
from logstore.segments.batch_views import iter_views
from logstore.segments.control import ControlType, end_transaction_marker
from logstore.segments.files import DiskFiles

from .support import (
    FakeClock,
    append,
    contents,
    fill,
    read_all,
    record,
    topic_source,
)

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
ACCESS_LOG = ROOT / "examples" / "data" / "apache_access_6k.log"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """``two``: 30 and 20 records in two partitions; ``one``: ten a second apart."""
    path = tmp_path / "store"
    parts = [
        [record(f"{p}/{n}", 10 * n + p, b"k%d" % (n % 4)) for n in range(30 - 10 * p)]
        for p in (0, 1)
    ]
    fill(path, "two", parts)
    fill(path, "one", [[record(f"v{n}", n * 1000) for n in range(10)]])
    return path


def called(source: LogSource, **options: Any) -> tuple[list[ConsumerRecord], Outcome]:
    found: list[ConsumerRecord] = []
    outcome = Replay(source, FunctionSink("here", found.append), **options).run()
    return found, outcome


def values(rows: list[ConsumerRecord]) -> list[str]:
    return [(one.value or b"").decode() for one in rows]


# --- filters, limits, pace ----------------------------------------------------------------------


def test_all_records_arrive_in_the_sources_order(store: Path) -> None:
    with topic_source(store, "two") as source:
        found, outcome = called(source)
        assert found == read_all(source)
    assert outcome == Outcome(50, 0, True, 0)


def test_filters_headers_and_limits_apply(store: Path) -> None:
    filters = Filters(where=[compile_expression("offset % 3 == 0")])
    with topic_source(store, "two") as source:
        found, outcome = called(
            source, test=filters.test(), transform=change_headers([], [("from", b"two")]), limit=12
        )
        expected = [one for one in read_all(source) if one.offset % 3 == 0][:12]
    assert [one[:6] for one in found] == [one[:6] for one in expected]
    assert {tuple(one.headers) for one in found} == {(("from", b"two"),)}
    assert outcome == Outcome(12, 0, False, 0)


def test_the_original_pace_is_kept_by_the_clock(store: Path) -> None:
    clock = FakeClock()
    begin = clock.monotonic()
    times: list[float] = []
    with topic_source(store, "one") as source:
        sink = FunctionSink("here", lambda one: times.append(clock.monotonic() - begin))
        Replay(source, sink, pace=OriginalPace(speed=10), clock=clock).run()
    assert times == pytest.approx([n / 10 for n in range(10)], abs=1e-5)


def test_a_rate_is_kept_by_the_clock_also_where_saves_come_in_between(
    store: Path, tmp_path: Path
) -> None:
    for name, every in (("a", None), ("b", 3)):
        clock = FakeClock()
        begin = clock.monotonic()
        times: list[float] = []
        with topic_source(store, "two") as source, resuming(tmp_path / name) as resume:
            sink = FunctionSink("here", lambda one: times.append(clock.monotonic() - begin))  # noqa: B023
            Replay(
                source, sink, pace=RatePace(20), clock=clock, resume=resume, save_every=every
            ).run()
        assert times == pytest.approx([n / 20 for n in range(50)], abs=1e-5)


def test_what_is_held_back_is_handed_on_before_a_sleep(store: Path, tmp_path: Path) -> None:
    clock = FakeClock()
    path = tmp_path / "out"
    sizes: list[int] = []

    def sleep(seconds: float) -> None:
        sizes.append(path.stat().st_size)
        FakeClock.sleep(clock, seconds)

    clock.sleep = sleep  # type: ignore[method-assign]
    sink = FileSink(str(path), files=DiskFiles())
    with topic_source(store, "one") as source:
        Replay(source, sink, pace=OriginalPace(), clock=clock).run()
        lines = [len(record_line(one)) for one in read_all(source)]
    assert sorted(set(sizes)) == [sum(lines[: n + 1]) for n in range(9)]


# --- whole batches ------------------------------------------------------------------------------


def copy(
    store: Path,
    text: str,
    *,
    name: str = "copy",
    partitions: int = 2,
    wanted: Any = None,
    **options: Any,
) -> Outcome:
    """Replay a topic into a topic of the same store."""
    sink_options = {
        key: options.pop(key) for key in list(options) if key in ("codec", "partitions_map")
    }
    with (
        topic_source(store, text, **(wanted or {})) as source,
        logstore.open(store, maintenance_interval=None) as opened,
    ):
        known = {topic.name for topic in opened.topics()}
        topic = (
            opened.topic(name)
            if name in known
            else opened.create_topic(name, partitions=partitions)
        )
        sink = TopicSink(
            topic, partitions=sink_options.get("partitions_map"), codec=sink_options.get("codec")
        )
        return Replay(source, sink, **options).run()


def raw_batches(store: Path, topic: str, partition: int = 0) -> list[bytes]:
    with logstore.open(store, create=False, read_only=True) as opened:
        return [batch.raw for batch in opened.topic(topic).partition(partition).read(0).batches()]


def same_but_for_offsets(
    one: list[list[ConsumerRecord]], other: list[list[ConsumerRecord]]
) -> bool:
    return [[r[3:] for r in part] for part in one] == [[r[3:] for r in part] for part in other]


def test_batches_are_carried_whole_where_nothing_needs_their_inside(store: Path) -> None:
    assert copy(store, "two") == Outcome(50, 0, True, 50)
    assert raw_batches(store, "copy") == raw_batches(store, "two")
    assert same_but_for_offsets(contents(store, "copy"), contents(store, "two"))


def test_batches_at_the_edges_of_a_range_are_opened(store: Path) -> None:
    outcome = copy(store, "two:0", wanted={"offset": 4, "end_offset": 20})
    assert outcome == Outcome(16, 0, True, 12)
    assert same_but_for_offsets(contents(store, "copy"), [contents(store, "two")[0][4:20], []])


@pytest.mark.parametrize(
    "options",
    [
        {"test": lambda one: True},
        {"transform": change_headers([], [("a", b"b")])},
        {"limit": 100},
        {"pace": RatePace(1e9)},
        {"codec": Codec.GZIP},
        {"partitions_map": parse_partition_map("0")},
        {"partitions_map": parse_partition_map("key")},
    ],
    ids=lambda options: next(iter(options)),
)
def test_batches_are_opened_where_something_needs_their_inside(
    options: dict[str, Any], store: Path
) -> None:
    assert copy(store, "two", **options).in_batches == 0
    found = contents(store, "copy")
    assert sorted(values(found[0] + found[1])) == sorted(
        values([one for part in contents(store, "two") for one in part])
    )


def test_partitions_may_change_places_whole(store: Path) -> None:
    outcome = copy(store, "two", partitions_map=parse_partition_map("0:1,1:0"))
    assert outcome.in_batches == 50
    assert same_but_for_offsets(contents(store, "copy"), contents(store, "two")[::-1])


def test_producers_transactions_gaps_and_control_batches_stay_behind(store: Path) -> None:
    marker = end_transaction_marker(ControlType.COMMIT, timestamp=1, coordinator_epoch=0)
    rows = [record(f"x{n}") for n in range(3)]
    with logstore.open(store) as opened:
        log = opened.create_topic("foreign").partition(0)
        made = [
            encode_batch(rows, base_offset=0, producer_id=7, producer_epoch=1, base_sequence=5),
            encode_batch(rows, base_offset=3, producer_id=7, producer_epoch=1, transactional=True),
            encode_batch([marker], base_offset=6, producer_id=7, control=True),
            encode_batch(rows, base_offset=20, codec=Codec.ZSTD),
        ]
        for raw in made:
            log.append_raw(raw, origin="replica")
    assert copy(store, "foreign") == Outcome(9, 0, True, 9)
    with logstore.open(store) as opened:
        headers = [batch.header for batch in opened.topic("copy").partition(0).read(0).batches()]
    assert [header.base_offset for header in headers] == [0, 3, 6]
    assert {header.producer_id for header in headers} == {-1}
    assert not any(header.transactional or header.control for header in headers)
    assert [header.codec for header in headers] == [Codec.NONE, Codec.NONE, Codec.ZSTD]
    assert values(contents(store, "copy")[0]) == ["x0", "x1", "x2"] * 3


@pytest.mark.parametrize(
    "name", sorted(path.name for path in GOLDEN.iterdir() if path.name.endswith("-0"))
)
def test_every_log_of_a_broker_is_replayed_record_for_record(name: str, tmp_path: Path) -> None:
    with (
        open_directories(str(GOLDEN / name), Range(), files=DiskFiles()) as source,
        logstore.open(tmp_path, maintenance_interval=None) as opened,
    ):
        Replay(source, TopicSink(opened.create_topic("copy"))).run()
        expected = read_all(source)
    (found,) = contents(tmp_path, "copy")
    # Format 0 has no timestamps; a record without one may get the time of its append.
    found = [
        one if old.timestamp >= 0 else one._replace(timestamp=-1)
        for one, old in zip(found, expected, strict=True)
    ]
    assert same_but_for_offsets([found], [expected])


def test_a_batch_that_is_too_large_for_the_topic_is_taken_apart(store: Path) -> None:
    fill(store, "large", [[record("x" * 500) for _ in range(10)]], batch=10)
    with logstore.open(store) as opened:
        opened.create_topic("copy", max_message_bytes=2000)
    assert copy(store, "large").delivered == 10
    assert len(raw_batches(store, "copy")) > 3
    assert same_but_for_offsets(contents(store, "copy"), contents(store, "large"))


def test_damage_ends_a_replay_behind_what_stands_in_front_of_it(store: Path) -> None:
    log = next((store / "topics" / "one-0").glob("*.log"))
    data = bytearray(log.read_bytes())
    data[-1] ^= 1
    log.write_bytes(data)
    with pytest.raises(ChecksumError, match="one-0"):
        copy(store, "one")
    assert values(contents(store, "copy")[0]) == [f"v{n}" for n in range(9)]
    found: list[ConsumerRecord] = []
    with topic_source(store, "one") as source, pytest.raises(ChecksumError):
        Replay(source, FunctionSink("here", found.append)).run()
    assert len(found) == 9


def test_a_stamp_changes_a_header_and_not_the_records() -> None:
    data = encode_batch([record("a"), record("b")], base_offset=5, codec=Codec.ZSTD)
    (batch,) = iter_views(data, below=7)
    other = stamped(batch, 77, 9)
    other.check_crc()
    assert Batch.parse(other.raw).crc_ok
    assert other.records() == batch.records()
    assert (other.header.producer_id, other.header.base_sequence) == (77, 9)
    assert stamped(batch) is batch
    marked = encode_batch([record("a")], producer_id=5, base_sequence=3, transactional=True)
    (batch,) = iter_views(marked, below=1)
    assert stamped(batch).raw == encode_batch([record("a")])


def test_carried_batches_fill_segments_of_the_size_that_the_topic_wants(store: Path) -> None:
    with logstore.open(store) as one:
        log = one.create_topic("many").partition(0)
        for number in range(40):
            log.append([record(f"{number}" + "x" * 10_000)], acks=1)
        one.create_topic("copy", segment_bytes=50_000)
    copy(store, "many")
    sizes = [path.stat().st_size for path in (store / "topics" / "copy-0").glob("*.log")]
    assert len(sizes) == 10
    assert max(sizes) <= 50_000
    assert same_but_for_offsets(contents(store, "copy"), contents(store, "many"))


def state_of(store: Path) -> dict[Path, int]:
    """When each file was last changed. (LMDB notes its readers in its lock file.)"""
    return {
        path: path.stat().st_mtime_ns
        for path in store.rglob("*")
        if path.is_file() and path.name != "lock.mdb"
    }


def test_a_dry_run_counts_and_changes_nothing(store: Path) -> None:
    before = state_of(store)
    with topic_source(store, "two", offset=4) as source:
        sink = CountingSink()
        assert Replay(source, sink).run().in_batches == 38
        assert sink.offsets == {("two", 0): [26, 4, 29], ("two", 1): [16, 4, 19]}
        sink = CountingSink()
        Replay(source, sink, test=lambda one: one.offset % 10 == 5).run()
        assert sink.offsets == {("two", 0): [3, 5, 25], ("two", 1): [2, 5, 15]}
    assert state_of(store) == before


def test_the_offsets_of_groups_are_never_moved(store: Path) -> None:
    with logstore.open(store) as opened:
        with opened.consumer("two", group="live", enable_auto_commit=False) as consumer:
            consumer.poll(7)
            consumer.commit()
            committed = consumer.committed()
        copy(store, "two")
        with topic_source(store, "two") as source:
            called(source)
        with opened.consumer(group="live") as consumer:
            assert consumer.committed(*committed) == committed
        assert [listing.name for listing in opened.groups.list()] == ["live"]


# --- going on -----------------------------------------------------------------------------------


@contextmanager
def resuming(path: Path, **identity: Any) -> Iterator[ResumeFile]:
    resume = ResumeFile(str(path), identity or {"a": 1}, files=DiskFiles())
    try:
        yield resume
    finally:
        resume.close()


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours runs behind it."""


class Mortal(Replay):
    """A replay that is killed after so many steps."""

    def __init__(self, *arguments: Any, steps: int, **options: Any) -> None:
        self._steps_left = steps
        super().__init__(*arguments, **options, report=self._live)

    def _live(self, *_: object) -> None:
        self._steps_left -= 1
        if self._steps_left < 0:
            raise Killed

    def _end(self) -> None:
        if self._steps_left >= 0:
            super()._end()


def in_small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read and merge a few records at a time, so that a kill may come anywhere."""
    monkeypatch.setattr("logstore.replay.carrying.FETCH_BYTES", 200)
    monkeypatch.setattr("logstore.replay.merging._CHUNK_RECORDS", 4)


def run_until_done(store: Path, make: Any, resume_path: Path, rng: random.Random) -> int:
    """Replay ``two``, killed again and again; how often it was killed."""
    kills = 0
    while True:
        with topic_source(store, "two") as source, resuming(resume_path) as resume:
            sink, options, close = make()
            replay = Mortal(
                source,
                sink,
                resume=resume,
                steps=rng.randrange(6),
                save_seconds=0 if rng.random() < 0.3 else 1e9,
                **options,
            )
            try:
                outcome = replay.run()
                sink.close()
            except Killed:
                kills += 1
                continue
            finally:
                close()
            if outcome.is_complete:
                return kills


@pytest.mark.parametrize("seed", range(12))
def test_into_a_topic_nothing_is_repeated_or_lost_however_it_was_killed(
    seed: int, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    in_small_pieces(monkeypatch)
    options: dict[str, Any] = {}
    if seed % 3:
        options["test"] = lambda one: True  # records instead of whole batches
    with logstore.open(store) as opened:
        opened.create_topic("copy", partitions=2, max_message_bytes=300 if seed % 2 else 5000)

    def make() -> tuple[Sink, dict[str, Any], Any]:
        opened = logstore.open(store, maintenance_interval=None)
        topic = opened.topic("copy")
        # Somebody else appends to the same partitions meanwhile.
        append(topic.partition(rng.randrange(2)), [record("foreign")])
        return TopicSink(topic, resumable=True), options, opened.close

    kills = run_until_done(store, make, tmp_path / "resume", rng)
    assert kills, f"seed {seed} proves nothing"
    found = [[r for r in part if r.value != b"foreign"] for part in contents(store, "copy")]
    assert same_but_for_offsets(found, contents(store, "two")), f"seed {seed}"


@pytest.mark.parametrize("seed", range(6))
def test_into_a_file_nothing_is_repeated_or_lost_however_it_was_killed(
    seed: int, store: Path, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    path = tmp_path / "out.jsonl"

    def make() -> tuple[Sink, dict[str, Any], Any]:
        return FileSink(str(path), files=DiskFiles()), {"save_every": 7}, lambda: None

    assert run_until_done(store, make, tmp_path / "resume", rng)
    with topic_source(store, "two") as source:
        assert path.read_bytes() == b"".join(map(record_line, read_all(source)))


@pytest.mark.parametrize("seed", range(6))
def test_a_function_gets_again_at_most_what_came_behind_the_last_save(
    seed: int, store: Path, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    seen: list[ConsumerRecord] = []

    def make() -> tuple[Sink, dict[str, Any], Any]:
        return FunctionSink("here", seen.append), {"save_every": 4}, lambda: None

    kills = run_until_done(store, make, tmp_path / "resume", rng)
    assert kills
    with topic_source(store, "two") as source:
        whole = read_all(source)
    assert list(dict.fromkeys(seen)) == whole
    assert len(seen) - len(whole) <= 4 * kills


@pytest.mark.parametrize("where", [0, 1, 13, 49])
def test_behind_an_error_or_ctrl_c_nothing_is_repeated(
    where: int, store: Path, tmp_path: Path
) -> None:
    for error in (ValueError("no"), KeyboardInterrupt()):
        seen: list[ConsumerRecord] = []
        angry = True

        def take(one: ConsumerRecord) -> None:
            if len(seen) == where and angry:  # noqa: B023
                raise error  # noqa: B023
            seen.append(one)  # noqa: B023

        with topic_source(store, "two") as source:
            path = tmp_path / type(error).__name__
            with (
                resuming(path) as resume,
                pytest.raises((UserCodeError, KeyboardInterrupt)),
            ):
                Replay(source, FunctionSink("here", take), resume=resume).run()
            angry = False
            with resuming(path) as resume:
                outcome = Replay(source, FunctionSink("here", take), resume=resume).run()
            assert seen == read_all(source)
            assert outcome == Outcome(50 - where, where, True, 0)


def test_a_replay_that_was_limited_goes_on_behind_its_last_record(
    store: Path, tmp_path: Path
) -> None:
    found: list[ConsumerRecord] = []
    filters = Filters(where=[compile_expression("offset % 2 == 1")])
    with topic_source(store, "two") as source:
        for _ in range(9):
            with resuming(tmp_path / "resume") as resume:
                sink = FunctionSink("here", found.append)
                Replay(source, sink, test=filters.test(), limit=3, resume=resume).run()
        assert found == [one for one in read_all(source) if one.offset % 2 == 1]


def test_a_replay_that_is_done_goes_on_with_what_came_since(store: Path, tmp_path: Path) -> None:
    for expected in (10, 0, 1, 0):
        with (
            topic_source(store, "one") as source,
            resuming(tmp_path / "resume") as resume,
            logstore.open(store, maintenance_interval=None) as opened,
        ):
            known = {topic.name for topic in opened.topics()}
            topic = opened.topic("copy") if "copy" in known else opened.create_topic("copy")
            sink = TopicSink(topic, resumable=True)
            assert Replay(source, sink, resume=resume).run().delivered == expected
            if not expected:
                append(opened.topic("one").partition(0), [record("late")])
    assert values(contents(store, "copy")[0]) == [f"v{n}" for n in range(10)] + ["late"]


def test_an_exact_sink_that_failed_is_not_asked_and_finds_out_later(
    store: Path, tmp_path: Path
) -> None:
    """The topic refuses a batch in the middle; what it had taken by then is passed over."""
    with logstore.open(store) as opened:
        opened.create_topic("copy", max_message_bytes=150)
    fill(store, "odd", [[record("x" * (300 if n == 20 else 20)) for n in range(40)]])

    def go() -> Outcome:
        with (
            topic_source(store, "odd") as source,
            resuming(tmp_path / "resume") as resume,
            logstore.open(store, maintenance_interval=None) as opened,
        ):
            return Replay(
                source, TopicSink(opened.topic("copy"), resumable=True), resume=resume
            ).run()

    with pytest.raises(InvalidInputError, match=r"max_message_bytes=150; from odd-0, offset 20"):
        go()
    assert len(contents(store, "copy")[0]) == 20
    with logstore.open(store) as opened:
        opened.alter_topic("copy", {"max_message_bytes": 5000})
    go()
    assert same_but_for_offsets(contents(store, "copy"), contents(store, "odd"))


# --- the resume file ----------------------------------------------------------------------------


def test_a_resume_file_of_another_replay_is_refused(store: Path, tmp_path: Path) -> None:
    path = tmp_path / "resume"
    with topic_source(store, "one") as source, resuming(path, source="one", where=[]) as resume:
        Replay(source, FunctionSink("here", lambda one: None), resume=resume).run()
    with pytest.raises(
        InvalidInputError, match=r'it says "one" of the source, and here it is "two"'
    ):
        ResumeFile(str(path), {"source": "two", "where": []}, files=DiskFiles())
    with resuming(path, source="one", where=[]) as resume:
        assert resume.saved is not None
        assert resume.saved.position == {"one-0": 10}


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "null", "5", "[" * 100_000, '{"resume_version": 1}', "\xff"]
    + [
        json.dumps({"resume_version": 1, "replay": {}, "position": p, "delivered": d, "sink": s})
        for p, d, s in (([], 0, None), ({"a": "x"}, 0, None), ({}, "x", None), ({}, 0, 5))
    ],
)
def test_a_file_that_is_no_resume_file_is_refused_and_left_alone(text: str, tmp_path: Path) -> None:
    path = tmp_path / "resume"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(InvalidInputError, match="this is no resume file"):
        ResumeFile(str(path), {}, files=DiskFiles())
    assert path.read_text(encoding="latin-1") == text


def test_a_resume_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "resume"
    path.write_text(
        '{"resume_version": 2, "replay": {}, "position": {}, "delivered": 0, "sink": null}'
    )
    with pytest.raises(InvalidInputError, match="of version 2; this program knows 1"):
        ResumeFile(str(path), {}, files=DiskFiles())


def test_two_replays_do_not_use_one_resume_file(tmp_path: Path) -> None:
    with resuming(tmp_path / "resume"), pytest.raises(ReplayError, match="another replay is at it"):
        ResumeFile(str(tmp_path / "resume"), {"a": 1}, files=DiskFiles())
    with suppress(FileNotFoundError):
        (tmp_path / "resume").unlink()
    with resuming(tmp_path / "resume") as resume:
        assert resume.saved is None


# --- real data ----------------------------------------------------------------------------------


def test_a_real_log_goes_through_topics_and_files_byte_for_byte(tmp_path: Path) -> None:
    data = ACCESS_LOG.read_bytes()
    lines = data.splitlines(keepends=True)
    path, out = tmp_path / "store", tmp_path / "out.jsonl"
    with logstore.open(path, maintenance_interval=None) as opened:
        log = opened.create_topic("access").partition(0)
        for start in range(0, len(lines), 1000):
            codec = Codec.ZSTD if start % 2000 else Codec.NONE
            log.append([record(line) for line in lines[start : start + 1000]], codec=codec, acks=1)
    assert copy(path, "access").in_batches == len(lines)
    with topic_source(path, "copy") as source:
        lines_sink = FileSink(str(out), files=DiskFiles())
        Replay(source, lines_sink).run()
        lines_sink.close()
    with (
        open_file(str(out), Range(), files=DiskFiles()) as file,
        logstore.open(path, maintenance_interval=None) as opened,
    ):
        sink = TopicSink(opened.create_topic("again"), codec=Codec.GZIP)
        Replay(file, sink).run()
        sink.close()
    for topic in ("copy", "again"):
        assert b"".join(one.value or b"" for one in contents(path, topic)[0]) == data
