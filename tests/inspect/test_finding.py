"""Searching: what is found is what a look at every record finds, and no more is decoded than has to
be."""

from __future__ import annotations

import json
import threading
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from logstore.errors import InvalidInputError
from logstore.fetcher import ConsumerRecord
from logstore.inspect.finding import Finder, Found
from logstore.inspect.json_path import parse_json_test
from logstore.inspect.query import HeaderTest, Query
from logstore.inspect.sources import Partition
from logstore.inspect.walking import Trouble
from logstore.log import PartitionLog
from logstore.replay.expressions import compile_expression
from logstore.replay.source import Range
from logstore.segments.batch import encode_batch, iter_batches, seal_batch
from logstore.segments.compression import Codec
from logstore.segments.files import DiskFiles, File
from logstore.segments.record import Record
from logstore.segments.transaction_index import decode_entries

from .logs import BatchOf, partitions_of, st_batches, write_log

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
PATTERNS = ["alpha", "a b", "^beta", "Gamma|delta", r"delta=\d", "Käse", "\udcff", "gamma$", ""]

queries = st.builds(
    Query,
    value=st.none() | st.sampled_from(PATTERNS),
    key=st.none() | st.sampled_from(PATTERNS),
    headers=st.lists(
        st.builds(
            HeaderTest, st.sampled_from(["type", "ä"]), st.none() | st.sampled_from(PATTERNS)
        ),
        max_size=1,
    ),
    json=st.just(()),
    where=st.just(()),
    fixed=st.booleans(),
    ignore_case=st.booleans(),
    invert=st.booleans(),
)
times = st.none() | st.integers(0, 61)
hypothesis_settings = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def search(partition: Partition, finder: Finder) -> list[Found]:
    return list(finder.search(partition))


def in_range(records: list[Record], wanted: Range) -> list[Record]:
    """The range as ``logstore replay`` has it: an end in front of the first record that is late."""
    rows = [one for one in records if one.offset >= (wanted.offset or 0)]
    if wanted.end_offset is not None:
        rows = [one for one in rows if one.offset < wanted.end_offset]
    if wanted.since is not None:
        first = next((n for n, one in enumerate(rows) if one.timestamp >= wanted.since), len(rows))
        rows = rows[first:]
    if wanted.until is not None:
        end = next((n for n, one in enumerate(rows) if one.timestamp >= wanted.until), len(rows))
        rows = rows[:end]
    return rows


def row(record: Record) -> ConsumerRecord:
    return ConsumerRecord("web", 3, *record)


@hypothesis_settings
@given(segments=st.lists(st_batches, min_size=1, max_size=3), query=queries, data=st.data())
def test_what_is_found_is_what_a_look_at_every_record_finds(
    segments: list[list[BatchOf]], query: Query, data: st.DataObject, tmp_path: Path
) -> None:
    records = write_log(tmp_path / "web-3", segments)
    since, until = data.draw(times), data.draw(times)
    if since is not None and until is not None and until < since:
        since, until = until, since
    begin = data.draw(st.none() | st.integers(0, 20)) if since is None else None
    wanted = Range(begin, None, since, until)
    finder = Finder(query, wanted)
    compiled = query.compiled()
    expected = [row(one) for one in in_range(records, wanted) if compiled.matches(row(one))]
    found = search(partitions_of(tmp_path / "web-3"), finder)
    assert [one.record for one in found] == expected
    assert finder.counters.matches == len(expected)
    assert finder.counters.troubles == 0


@hypothesis_settings
@given(
    segments=st.lists(st_batches, min_size=1, max_size=2),
    query=queries,
    before=st.integers(0, 3),
    after=st.integers(0, 3),
    limit=st.none() | st.integers(1, 3),
)
def test_context_is_what_stands_around_the_matches(
    segments: list[list[BatchOf]],
    query: Query,
    before: int,
    after: int,
    limit: int | None,
    tmp_path: Path,
) -> None:
    records = [row(one) for one in write_log(tmp_path / "web-3", segments)]
    compiled = query.compiled()
    places = [n for n, one in enumerate(records) if compiled.matches(one)][:limit]
    wanted = {n for place in places for n in range(place - before, place + after + 1)}
    wanted &= set(range(len(records)))
    expected = [(records[n], n in places, n - 1 in wanted) for n in sorted(wanted)]
    found = search(
        partitions_of(tmp_path / "web-3"), Finder(query, before=before, after=after, limit=limit)
    )
    if before or after:
        assert [one[:3] for one in found] == expected
    else:
        assert [one[:2] for one in found] == [one[:2] for one in expected]


def texts(*values: str, timestamp: int = 0) -> list[Record]:
    return [Record(timestamp=timestamp, value=value.encode()) for value in values]


@pytest.mark.parametrize("codec", Codec)
def test_batches_without_the_text_are_not_decoded(codec: Codec, tmp_path: Path) -> None:
    batches = [BatchOf(texts(f"number {n}", "x"), codec) for n in range(20)]
    write_log(tmp_path / "web-0", [batches])
    for query in (
        Query(value="number 7"),
        Query(value="ber 7", fixed=True),
        Query(value="NUMBER 7", fixed=True, ignore_case=True),
        Query(value=r"number 7\b"),
    ):
        finder = Finder(query)
        (found,) = search(partitions_of(tmp_path / "web-0"), finder)
        assert found.record.value == b"number 7"
        assert (finder.counters.batches, finder.counters.decoded) == (20, 1)


def test_batches_outside_of_the_times_are_neither_opened_nor_read_where_an_index_says_so(
    tmp_path: Path,
) -> None:
    class CountingFiles(DiskFiles):
        read = 0

        def open(self, path: str, *, write: bool = False, create: bool = False) -> File:
            file = super().open(path, write=write, create=create)
            real = file.read_at

            def read_at(size: int, position: int, /) -> bytes:
                data = real(size, position)
                self.read += len(data)
                return data

            file.read_at = read_at  # type: ignore[method-assign]
            return file

    with PartitionLog(tmp_path / "web-0") as log:
        for number in range(400):
            value = b"%d" % number * 4000
            log.append([Record(timestamp=number, value=value)], acks=1, codec=Codec.NONE)
    size = sum(path.stat().st_size for path in (tmp_path / "web-0").glob("*.log"))
    files = CountingFiles()
    finder = Finder(Query(), Range(since=390, until=395), files=files)
    found = search(partitions_of(tmp_path / "web-0"), finder)
    assert [one.record.timestamp for one in found] == [390, 391, 392, 393, 394]
    assert finder.counters.decoded == 5
    assert files.read < size / 3
    by_offset = Finder(Query(), Range(offset=398))
    assert len(search(partitions_of(tmp_path / "web-0"), by_offset)) == 2


def test_a_time_index_that_lies_is_not_believed(tmp_path: Path) -> None:
    with PartitionLog(tmp_path / "web-0") as log:
        for number in range(40):
            log.append([Record(timestamp=number, value=b"x" * 3000)], acks=1)
    (index,) = (tmp_path / "web-0").glob("*.timeindex")
    whole = bytearray(index.read_bytes())
    for start in range(0, len(whole), 12):
        whole[start : start + 8] = (start).to_bytes(8, "big")  # earlier than the log says
    index.write_bytes(bytes(whole))
    finder = Finder(Query(), Range(since=3))
    assert len(search(partitions_of(tmp_path / "web-0"), finder)) == 37


# Damage -----------------------------------------------------------------------------------------


def told(partition: Partition) -> tuple[list[bytes | None], list[Trouble]]:
    troubles: list[Trouble] = []
    found = search(partition, Finder(Query(), trouble=troubles.append))
    return [one.record.value for one in found], troubles


def test_damaged_batches_are_told_and_passed_over(tmp_path: Path) -> None:
    write_log(tmp_path / "web-0", [[BatchOf(texts(str(n), str(n))) for n in range(5)]])
    (path,) = (tmp_path / "web-0").glob("*.log")
    data = bytearray(path.read_bytes())
    batches = list(iter_batches(bytes(data)))
    data[batches[1].position + 70] ^= 1
    data[batches[3].position + 11] ^= 1  # its length
    path.write_bytes(bytes(data))
    values, troubles = told(partitions_of(tmp_path / "web-0"))
    assert values == [b"0", b"0", b"2", b"2", b"4", b"4"]
    assert [(one.path, one.position) for one in troubles] == [
        (str(path), batches[1].position),
        (str(path), batches[3].position),
    ]
    assert "checksum" in str(troubles[0])


def test_records_that_are_none_are_told(tmp_path: Path) -> None:
    body = encode_batch(texts("abc"))[61:]
    wrong = seal_batch(body + b"\0", record_count=1, base_timestamp=0, max_timestamp=9).at(0, 0)
    bomb = seal_batch(body, record_count=1, base_timestamp=0, max_timestamp=9, attributes=4)
    (tmp_path / "web-0").mkdir()
    data = wrong + bomb.at(1, 0) + encode_batch(texts("good"), base_offset=2)
    (tmp_path / "web-0" / "00000000000000000000.log").write_bytes(data)
    values, troubles = told(partitions_of(tmp_path / "web-0"))
    assert values == [b"good"]
    assert [one.position for one in troubles] == [0, len(wrong)]
    finder = Finder(Query(), Range(since=1, until=5))
    assert search(partitions_of(tmp_path / "web-0"), finder) == []
    assert finder.counters.troubles == 2


def test_a_torn_end_is_somebody_writing_and_one_in_front_of_a_segment_is_damage(
    tmp_path: Path,
) -> None:
    for segments, count in (([["a"], ["b"]], 0), ([["a"], ["b"], []], 1)):
        write_log(tmp_path / "web-0", [[BatchOf(texts(*one))] if one else [] for one in segments])
        path = tmp_path / "web-0" / "00000000000000000001.log"
        path.write_bytes(path.read_bytes()[:-1])
        values, troubles = told(partitions_of(tmp_path / "web-0"))
        assert values == [b"a"]
        assert len(troubles) == count


def test_a_directory_that_is_gone_is_told(tmp_path: Path) -> None:
    _, troubles = told(Partition("web", 0, str(tmp_path / "web-0")))
    assert len(troubles) == 1


# While others write -----------------------------------------------------------------------------


def test_a_segment_that_was_replaced_is_gone_on_with_where_it_was_left(tmp_path: Path) -> None:
    directory = tmp_path / "web-0"
    write_log(directory, [[BatchOf(texts(str(n)))] for n in range(4)])
    found = Finder(Query()).search(partitions_of(directory))
    assert next(found).record.offset == 0
    # As after a compaction: one segment in place of four.
    whole = b"".join(path.read_bytes() for path in sorted(directory.glob("*.log")))
    for path in directory.glob("*.log"):
        path.unlink()
    (directory / "00000000000000000000.log").write_bytes(whole)
    assert [one.record.offset for one in found] == [1, 2, 3]


def test_a_search_beside_a_writer_finds_what_was_there_when_it_began(tmp_path: Path) -> None:
    stop = threading.Event()
    with PartitionLog(tmp_path / "web-0") as log:
        log.append(texts(*map(str, range(100))), acks=1)

        def write() -> None:
            while not stop.is_set():
                log.append(texts("more" * 100), acks=1)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for _ in range(5):
                values, troubles = told(partitions_of(tmp_path / "web-0"))
                assert values[:100] == [b"%d" % number for number in range(100)]
                assert troubles == []
        finally:
            stop.set()
            writer.join()


def test_deleted_records_are_not_found(tmp_path: Path) -> None:
    with PartitionLog(tmp_path / "web-0") as log:
        log.append(texts("a", "b", "c"))
        log.delete_records(2)
    assert told(partitions_of(tmp_path / "web-0")) == ([b"c"], [])


# Memory -----------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_log(tmp_path: Path) -> None:
    (tmp_path / "web-0").mkdir()
    first = encode_batch(texts(*("x" * 1000 for _ in range(1000))))
    (batch,) = iter_batches(first)
    with (tmp_path / "web-0" / "00000000000000000000.log").open("wb") as file:
        for number in range(24):
            file.write(batch.placed(number * 1000, 0).raw)
        file.write(encode_batch(texts("needle"), base_offset=24_000))
    for query in (Query(value="needle"), Query(value="^n..dle$"), Query(key="x", invert=True)):
        tracemalloc.start()
        try:
            finder = Finder(query, before=3, after=3)
            count = sum(1 for _ in finder.search(partitions_of(tmp_path / "web-0")))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert count >= 1
        assert peak < 12 << 20  # of 24 MB


# Kafka's own files ------------------------------------------------------------------------------


def test_records_of_open_and_aborted_transactions_are_left_out_when_asked() -> None:
    partition = partitions_of(GOLDEN / "partition-0")
    (sidecar,) = (GOLDEN / "v2-transactions-0").glob("*.json")
    known = json.loads(sidecar.read_text(encoding="utf-8"))
    batches = [one for one in known["batches"] if not one["control"]]
    everything = [one.record.offset for one in search(partition, Finder(Query()))]
    assert everything == [
        one["offset"]
        for one in known["records"]
        if any(b["base_offset"] <= one["offset"] <= b["last_offset"] for b in batches)
    ]
    (index,) = (GOLDEN / "partition-0").glob("*.txnindex")
    aborted = {
        (entry.producer_id, offset)
        for entry in decode_entries(index.read_bytes())
        for offset in range(entry.first_offset, entry.last_offset + 1)
    }
    markers = {b["producer_id"]: b["last_offset"] for b in known["batches"] if b["control"]}
    still_open = [
        b["base_offset"]
        for b in batches
        if b["transactional"] and b["base_offset"] > markers.get(b["producer_id"], -1)
    ]
    expected = [
        offset
        for b in batches
        for offset in range(b["base_offset"], b["last_offset"] + 1)
        if offset < min(still_open)
        and not (b["transactional"] and (b["producer_id"], offset) in aborted)
    ]
    committed = search(partition, Finder(Query(), committed=True))
    assert [one.record.offset for one in committed] == expected
    assert 0 < len(expected) < len(everything)


def test_json_and_expressions_are_asked_of_each_record(tmp_path: Path) -> None:
    write_log(
        tmp_path / "web-0",
        [[BatchOf(texts('{"a":1}', '{"a":2}'), Codec.ZSTD), BatchOf(texts("no", '{"a":3}'))]],
    )
    partition = partitions_of(tmp_path / "web-0")
    query = Query(json=[parse_json_test("$.a")], where=[compile_expression("json.a > 1")])
    assert [one.record.offset for one in search(partition, Finder(query))] == [1, 3]


def test_a_range_that_is_none_is_refused() -> None:
    for wanted in (Range(since=5, until=4), Range(offset=-1), Range(last=3)):
        with pytest.raises(InvalidInputError):
            Finder(Query(), wanted)
