"""Partitions of keys: the ones that Kafka's Java client chooses."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logstore.partitioner import murmur2, partition_for_key

# From Kafka's own UtilsTest, as signed 32-bit numbers.
KAFKAS = [
    (b"21", -973932308),
    (b"foobar", -790332482),
    (b"a-little-bit-long-string", -985981536),
    (b"a-little-bit-longer-string", -1486304829),
    (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
    (b"abc", 479470107),
]


@pytest.mark.parametrize(("data", "signed"), KAFKAS, ids=[data.decode() for data, _ in KAFKAS])
def test_the_hash_is_kafkas(data: bytes, signed: int) -> None:
    assert struct.unpack(">i", struct.pack(">I", murmur2(data))) == (signed,)


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_a_key_belongs_to_the_partition_of_its_positive_hash(kind: type[bytes]) -> None:
    for data, signed in KAFKAS:
        for count in (1, 2, 3, 12, 10_000):
            assert partition_for_key(kind(data), count) == (signed & 0x7FFFFFFF) % count


@given(st.binary(max_size=70), st.integers(1, 100))
def test_every_key_has_a_partition(key: bytes, count: int) -> None:
    assert 0 <= partition_for_key(key, count) < count


@given(st.binary(max_size=70))
def test_the_hash_agrees_with_one_written_down_naively(data: bytes) -> None:
    assert murmur2(data) == _naive(data)


def _naive(data: bytes) -> int:
    """MurmurHash2, byte by byte, as in its author's reference."""
    h = 0x9747B28C ^ len(data)
    while len(data) >= 4:
        k = data[0] | data[1] << 8 | data[2] << 16 | data[3] << 24
        k = k * 0x5BD1E995 % 2**32
        k ^= k >> 24
        k = k * 0x5BD1E995 % 2**32
        h = h * 0x5BD1E995 % 2**32
        h ^= k
        data = data[4:]
    if len(data) == 3:
        h ^= data[2] << 16
    if len(data) >= 2:
        h ^= data[1] << 8
    if len(data) >= 1:
        h ^= data[0]
        h = h * 0x5BD1E995 % 2**32
    h ^= h >> 13
    h = h * 0x5BD1E995 % 2**32
    return h ^ h >> 15
