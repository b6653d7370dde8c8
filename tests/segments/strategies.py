"""What the tests of the format share: strategies for records, and ways to damage bytes."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from logstore.segments.record import NO_TIMESTAMP, Record

INT64_MAX = (1 << 63) - 1
BASE_TIMESTAMP = 1_700_000_000_000

_Test = TypeVar("_Test", bound=Callable[..., None])


def examples(count: int) -> Callable[[_Test], _Test]:
    """Run a property on ``count`` examples, however long one takes; a failure can be replayed."""

    def decorate(test: _Test) -> _Test:
        return settings(
            max_examples=count,
            deadline=None,
            print_blob=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        )(test)

    return decorate


# Sizes at which a length's varint grows by a byte, and a few beyond the table of small ones.
border_sizes = st.sampled_from([0, 1, 63, 64, 127, 128, 8191, 8192, 32767, 32768, 70_000])
blobs = st.one_of(
    st.none(),
    st.binary(max_size=24),
    st.tuples(border_sizes, st.binary(min_size=1, max_size=1)).map(lambda pair: pair[1] * pair[0]),
)
names = st.one_of(
    st.text(max_size=8),
    st.binary(max_size=8).map(lambda raw: raw.decode("utf-8", "surrogateescape")),
    st.just("twice"),
)
header_lists = st.lists(st.tuples(names, st.one_of(st.none(), st.binary(max_size=12))), max_size=5)
timestamps = st.one_of(
    st.integers(BASE_TIMESTAMP - 100, BASE_TIMESTAMP + 100),
    st.integers(NO_TIMESTAMP, INT64_MAX - 1),
    st.sampled_from([NO_TIMESTAMP, 0, 1, INT64_MAX - 1]),
)
"""The very last millisecond is left out: beside a record without a timestamp it cannot be stored
(``test_batch.py`` shows it)."""

records = st.builds(
    Record,
    timestamp=timestamps,
    key=blobs,
    value=blobs,
    headers=header_lists.map(tuple),
)
plain_records = st.builds(Record, timestamp=st.just(BASE_TIMESTAMP), value=st.binary(max_size=40))
"""Records as logs mostly hold them: one time, no key, no headers."""

record_lists = st.one_of(
    st.lists(records, min_size=1, max_size=8),
    st.lists(plain_records, min_size=1, max_size=80),
    st.lists(st.one_of(records, plain_records), min_size=1, max_size=12),
)
small_record_lists = st.lists(
    st.builds(
        Record,
        timestamp=st.integers(BASE_TIMESTAMP - 70, BASE_TIMESTAMP + 70),
        key=st.one_of(st.none(), st.binary(max_size=4)),
        value=st.one_of(st.none(), st.binary(max_size=70)),
        headers=st.lists(
            st.tuples(st.text(max_size=2), st.one_of(st.none(), st.binary(max_size=2))),
            max_size=2,
        ).map(tuple),
    ),
    min_size=1,
    max_size=5,
)
"""Small enough that a random mutation hits a length rather often."""

seeds = st.integers(0, (1 << 32) - 1)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """``data`` with a few bytes changed, cut out, doubled or put in, or its end cut off."""
    damaged = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        if not damaged:
            break
        at = rng.randrange(len(damaged))
        kind = rng.random()
        if kind < 0.5:
            damaged[at] ^= 1 << rng.randrange(8)
        elif kind < 0.7:
            damaged[at] = rng.choice((0, 1, 2, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif kind < 0.8:
            del damaged[at : at + rng.randint(1, 4)]
        elif kind < 0.9:
            damaged[at:at] = rng.randbytes(rng.randint(1, 10))
        else:
            del damaged[at:]
    return bytes(damaged)


def assigned(batch: list[Record], base_offset: int = 0) -> list[Record]:
    """The records as they read back, at ``base_offset`` and the offsets behind it."""
    return [
        record._replace(offset=base_offset + index, headers=tuple(record.headers))
        for index, record in enumerate(batch)
    ]
