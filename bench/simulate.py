"""The simulator: how many produce requests it gets through in a second of real time.

    python bench/simulate.py [--quick] [--json] [--only TITLE]

A cluster of three brokers with a replication factor of 3, ``acks=all``, two replicas at least in
sync, and all checkers looking on; nothing goes wrong. Every request is one batch for one partition,
which the leader and two followers append to real logs in memory. The limit is those appends alone:
the same batches, appended one by one to three logs. One thread that waits for nothing: what is
timed is the processor, so that others on the machine disturb less.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.harness import Figure, Options, Row, Session, Table, Work, report
from logstore.log import PartitionLog
from logstore.replication.checkers.suite import Checkers
from logstore.replication.cluster import Cluster
from logstore.replication.history import Acknowledged
from logstore.replication.kernel import SimulatedClock, Simulation
from logstore.replication.scenario import Scenario
from logstore.segments.batch import encode_batch
from logstore.segments.memory_files import MemoryFiles
from logstore.segments.record import Record

GOAL = 8_000
"""Produce requests a second."""
RECORD_BYTES = 100
WARM_UP_MS = 1_500
"""Virtual time that is not counted."""
REQUESTS = 20_000
"""In a round."""


def busy(requests: int, records: int) -> Scenario:
    """A cluster that is about as busy as its disks allow; ``records`` are in each batch."""
    return Scenario("busy").replace(
        {
            "duration_ms": WARM_UP_MS + requests // 7,
            "cluster.partitions": 3,
            "cluster.min_insync_replicas": 2,
            "workload.producers": 6,
            "workload.records_per_second": 1200 * records,
            "workload.batch_records": records,
            "workload.record_bytes": RECORD_BYTES,
        }
    )


@contextmanager
def simulate(requests: int, records: int, *, checked: bool) -> Iterator[Work]:
    """Run the cluster, and say how many requests a second were answered."""
    simulation = Simulation(1)
    scenario = busy(requests, records)
    checkers = Checkers(simulation.history, scenario.cluster) if checked else None
    answered: list[int] = []
    simulation.history.subscribe(Acknowledged, lambda event: answered.append(event.at_us))
    cluster = Cluster(simulation, scenario)
    simulation.run_until(WARM_UP_MS * 1000)  # until all have found each other

    def run() -> Figure:
        before = len(answered)
        start = time.process_time()
        cluster.run()
        seconds = time.process_time() - start
        assert len(answered) - before > requests * 9 // 10
        assert checkers is None or not checkers.findings.violations
        return Figure((len(answered) - before) / seconds)

    yield run


@contextmanager
def append_only(requests: int, records: int) -> Iterator[Work]:
    """Append as many batches, each to three logs."""
    clock = SimulatedClock(Simulation(1))
    logs = [PartitionLog(f"orders-{n}", files=MemoryFiles(), clock=clock) for n in range(3)]
    value = b"x" * RECORD_BYTES
    batch = [Record(timestamp=clock.now_ms(), value=value) for _ in range(records)]
    stamped = [
        encode_batch(batch, producer_id=1, producer_epoch=0, base_sequence=number * records)
        for number in range(requests)
    ]

    def run() -> Figure:
        start = time.process_time()
        for raw in stamped:
            for log in logs:
                log.append_raw(raw, acks=1)
        return Figure(requests / (time.process_time() - start))

    yield run
    for log in logs:
        log.abandon()


def tables(options: Options) -> list[Table]:
    """A table for each size of batches."""
    made = []
    requests = max(500, int(REQUESTS * options.scale))
    for records in (1, 10):
        alone: Session = partial(append_only, requests, records)
        checked: Session = partial(simulate, requests, records, checked=True)
        bare: Session = partial(simulate, requests, records, checked=False)
        each = "1 record" if records == 1 else f"{records} records"
        rows = [
            Row("simulated, with all checkers", requests, checked, goal=GOAL),
            Row("simulated, without checkers", requests, bare),
            Row("the three appends alone", requests, alone, letter="A"),
        ]
        made.append(Table(f"produce requests of {each}, factor 3", rows, unit="requests/s"))
    return made


if __name__ == "__main__":
    report(__doc__ or "", tables)
