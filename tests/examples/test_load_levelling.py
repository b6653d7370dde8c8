"""Load levelling: a burst of a hundred times the consumers' rate, in bounded memory, in order."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from logstore import Consumer, ConsumerRecord, Fetch, PartitionLog, Producer

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "load_levelling.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("load_levelling", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_a_burst_is_absorbed_in_bounded_memory_and_drained_in_order(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is held is counted where it is held: each fetch, each poll, each send."""
    fetched: list[int] = []
    polled: list[int] = []
    held: list[int] = []
    read, poll, send = PartitionLog.read, Consumer.poll, Producer.send

    def counted_read(log: PartitionLog, *arguments: Any, **options: Any) -> Fetch:
        fetch = read(log, *arguments, **options)
        fetched.append(len(fetch.data))
        return fetch

    def counted_poll(consumer: Consumer, *arguments: Any, **options: Any) -> list[ConsumerRecord]:
        records = poll(consumer, *arguments, **options)
        polled.append(len(records))
        return records

    def counted_send(producer: Producer, *arguments: Any, **options: Any) -> Any:
        future = send(producer, *arguments, **options)
        held.append(producer.buffered_bytes)
        return future

    monkeypatch.setattr(PartitionLog, "read", counted_read)
    monkeypatch.setattr(Consumer, "poll", counted_poll)
    monkeypatch.setattr(Producer, "send", counted_send)
    ticks = example.main(str(tmp_path / "store"))

    total = example.BURST * example.BURST_TICKS
    assert example.BURST == 100 * example.RATE
    # Absorbed: while the burst lasts all of it is taken, at the end of it nearly all of it waits.
    burst = ticks[: example.BURST_TICKS]
    assert [tick.sent for tick in burst] == [
        (number + 1) * example.BURST for number in range(example.BURST_TICKS)
    ]
    assert burst[-1].waiting >= total * 98 // 100
    # Bounded: neither the producer nor the consumer holds more because more waits.
    assert len(held) == total
    assert max(held) <= example.BUFFER_BYTES
    assert max(tick.buffered_bytes for tick in ticks) <= example.BUFFER_BYTES
    assert max(polled) <= example.RATE
    assert max(fetched) <= example.READ_AHEAD_BYTES
    waiting_bytes = burst[-1].waiting * len(b"order 10000: one of everything")
    assert waiting_bytes > 4 * (example.BUFFER_BYTES + example.READ_AHEAD_BYTES)
    # Drained, in order (the example raises where an order comes out of turn), at a steady rate.
    assert ticks[-1].done == total
    assert ticks[-1].waiting == 0
    assert len(ticks) == total // example.RATE


def test_the_script_runs_and_says_what_it_does() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stderr == ""
    assert "deal with 50 orders in a tick; 5,000 come" in done.stdout
    assert "All 50,000 orders were dealt with, in the order in which they came." in done.stdout
