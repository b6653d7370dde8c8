"""``logstore find``: what it prints, and with which code it exits."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

import logstore
from logstore.segments.batch import encode_batch
from logstore.segments.record import Record

from .program import GOLDEN, end_of, json_lines, only_line, run, running


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    with logstore.open(path) as opened:
        topic = opened.create_topic("orders", partitions=2)
        for number in range(2):
            topic.partition(number).append(
                [
                    Record(
                        timestamp=1_700_000_000_000 + place,
                        key=f"k{place}".encode(),
                        value=json.dumps({"n": place, "text": f"Order {place}"}).encode(),
                        headers=[("type", b"created")] if place % 2 else [],
                    )
                    for place in range(10)
                ]
            )
        opened.create_topic("empty")
    return path


def found(*words: str, store: Path, code: int = 0) -> list[tuple[int, int]]:
    lines = json_lines(run("find --json", *words, store=store, code=code))
    return [(line["partition"], line["offset"]) for line in lines]


def test_records_are_found_by_value_key_header_json_and_time(store: Path) -> None:
    assert found("Order 7", store=store) == [(0, 7), (1, 7)]
    assert found("Order 7", "orders:1", store=store) == [(1, 7)]
    assert found("order [78]", "-i", "topics/orders-0", store=store) == [(0, 7), (0, 8)]
    assert found("--key", "^k3$", "orders:0", store=store) == [(0, 3)]
    assert found("--header", "type=^cre", "-m", "2", store=store) == [(0, 1), (0, 3)]
    assert found("--json-path", "$.n=4", "orders", store=store) == [(0, 4), (1, 4)]
    assert found("--where", "json.n > 8", store=store) == [(0, 9), (1, 9)]
    assert found("-F", "-v", "Order", store=store, code=1) == []
    times = ("--from", "1700000000003", "--to", "1700000000005")
    assert found("", "orders:0", *times, store=store) == [(0, 3), (0, 4)]
    assert found("", "orders:0", "--offset", "8", store=store) == [(0, 8), (0, 9)]
    assert found("", "orders:0", "--end-offset", "1", store=store) == [(0, 0)]


def test_lines_for_people_say_where_and_when(store: Path) -> None:
    text = run("find", "Order 3", "orders:1", "-C", "1", store=store).stdout
    assert text.splitlines() == [
        (
            'orders-1-2- 2023-11-14T22:13:20.002Z key="k2" '
            'value="{\\"n\\": 2, \\"text\\": \\"Order 2\\"}"'
        ),
        (
            'orders-1:3: 2023-11-14T22:13:20.003Z key="k3" '
            'value="{\\"n\\": 3, \\"text\\": \\"Order 3\\"}" headers={"type": "created"}'
        ),
        (
            'orders-1-4- 2023-11-14T22:13:20.004Z key="k4" '
            'value="{\\"n\\": 4, \\"text\\": \\"Order 4\\"}"'
        ),
    ]


def test_groups_of_records_with_context_stand_apart(store: Path) -> None:
    lines = run("find", "Order [36]", "-A", "1", "orders", store=store).stdout.splitlines()
    assert [line.split(" ")[0] for line in lines] == [
        *("orders-0:3:", "orders-0-4-", "--", "orders-0:6:", "orders-0-7-", "--"),
        *("orders-1:3:", "orders-1-4-", "--", "orders-1:6:", "orders-1-7-"),
    ]
    kinds = [line["type"] for line in json_lines(run("find --json -A1 Order.3", store=store))]
    assert kinds == ["record", "context"] * 2


def test_a_record_is_printed_as_read_prints_it(store: Path) -> None:
    first = run("read orders --partition 0 --max 1 --json", store=store).stdout
    assert run("find --json --max-count 1", "Order", store=store).stdout == first
    formatted = run("find", "Order 9", "--format", "%t/%p/%o %k\\n", store=store).stdout
    assert formatted == "orders/0/9 k9\norders/1/9 k9\n"


def test_counts_files_and_silence(store: Path) -> None:
    assert run("find -c", "Order [1-3]", store=store).stdout == (
        "empty-0:0\norders-0:3\norders-1:3\n"
    )
    assert json_lines(run("find -c --json", "nothing", "orders", store=store, code=1)) == [
        {"type": "count", "topic": "orders", "partition": number, "count": 0} for number in (0, 1)
    ]
    path = str(store / "topics" / "orders-1" / "00000000000000000000.log")
    assert run("find -l", "Order", "orders:1", store=store).stdout == f"{path}\n"
    assert json_lines(run("find -l --json", "Order", "orders:1", store=store)) == [
        {"type": "file", "topic": "orders", "partition": 1, "file": path}
    ]
    assert run("find -q Order", store=store).stdout == ""
    assert run("find -q nothing", store=store, code=1).stdout == ""
    assert run("find x empty", store=store, code=1).stdout == ""


def sidecars() -> list[Path]:
    return sorted(GOLDEN.glob("*/*.json"))


@pytest.mark.parametrize("sidecar", sidecars(), ids=[path.parent.name for path in sidecars()])
def test_every_record_of_a_brokers_directory_is_found(sidecar: Path) -> None:
    known = json.loads(sidecar.read_text(encoding="utf-8"))
    control = [
        range(one["base_offset"], one["last_offset"] + 1)
        for one in known["batches"]
        if one.get("control")
    ]
    expected = [
        (one["offset"], one["timestamp"])
        for one in known["records"]
        if not any(one["offset"] in offsets for offsets in control)
    ]
    result = run("find --json", "", sidecar.parent, code=0 if expected else 1)
    assert [(one["offset"], one["timestamp"]) for one in json_lines(result)] == expected
    assert result.stderr == ""


def test_only_what_was_committed() -> None:
    directory = GOLDEN / "v2-transactions-0"
    everything = json_lines(run("find --json", "", directory))
    committed = json_lines(run("find --json --isolation read_committed", "", directory))
    assert 0 < len(committed) < len(everything)


def test_damage_is_told_and_the_rest_is_found(tmp_path: Path) -> None:
    batches = [encode_batch([Record(timestamp=0, value=b"v%d" % n)], base_offset=n) for n in (0, 1)]
    damaged = bytearray(batches[0])
    damaged[-3] ^= 1
    log = tmp_path / "00000000000000000000.log"
    log.write_bytes(bytes(damaged) + batches[1])
    result = run("find v", log, code=2)
    assert 'value="v1"' in only_line(result.stdout)
    assert only_line(result.stderr).startswith(f"logstore: {log} at byte 0: ")
    assert run("find -q v", log, code=0).stdout == ""  # as grep: the answer is known


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("(", "orders"), "is no regular expression"),
        (("x", "nothing"), "there is no topic called 'nothing'"),
        (("x", "no/thing"), "no such file or directory"),
        (("x", "orders:7"), "has 2 partitions"),
        (("x", "--since", "soon"), "is no time"),
        (("x", "--since", "1d", "--until", "2d"), "before it begins"),
        (("x", "--since", "1d", "--offset", "2"), "exclude each other"),
        (("--json-path", "user"), "is no JSON path"),
        (("--header", "=x"), "NAME=PATTERN"),
        (("--where", "keys"), "there is no 'keys'"),
        (("--where", "json.n / 0 > 1"), "offset 0"),
        (("x", "--key", "k"), "--value PATTERN"),
        (("x", "--format", "%z"), "no letter"),
        (("-c", "-l", "x"), "exclude each other"),
        (("x", "--json", "--format", "%s"), "exclude each other"),
        ((), "what is looked for?"),
    ],
)
def test_wrong_use_is_one_line(words: tuple[str, ...], complaint: str, store: Path) -> None:
    result = run("find", *words, store=store, code=2)
    assert complaint in only_line(result.stderr)
    assert result.stdout == ""


def test_topics_need_a_store() -> None:
    assert "of which store" in only_line(run("find x", code=2).stderr)


def test_whoever_stops_reading_ends_it(store: Path) -> None:
    with logstore.open(store) as opened:
        opened.topic("orders").partition(0).append([Record(value=b"Order" * 50)] * 5000)
    with running("find Order", store=store) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert end_of(process) == (0, b"")


def test_ctrl_c_ends_it(store: Path) -> None:
    with logstore.open(store) as opened:
        opened.topic("orders").partition(0).append([Record(value=b"Order" * 50)] * 5000)
    with running("find Order", store=store) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it waits now for somebody to read on
        process.send_signal(signal.SIGINT)
        code, complaint = end_of(process)
    assert (code, complaint) == (130, b"logstore: interrupted\n")


def test_matches_are_coloured_on_a_terminal(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pty

    main_end, terminal = pty.openpty()
    try:
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.delenv("NO_COLOR", raising=False)
        with running("find Order.3 orders:0", store=store, stdout=terminal) as process:
            assert process.wait(60) == 0
        shown = os.read(main_end, 1 << 16).decode()
        assert "\x1b[1;31mOrder 3\x1b[0m" in shown
        monkeypatch.setenv("NO_COLOR", "1")
        with running("find Order.3 orders:0", store=store, stdout=terminal) as process:
            assert process.wait(60) == 0
        assert "\x1b[1;31m" not in os.read(main_end, 1 << 16).decode()
    finally:
        os.close(main_end)
        os.close(terminal)
