"""Which partition a key belongs to: the same one that Kafka's Java client would choose.

Source: Kafka's ``BuiltInPartitioner`` (``toPositive(murmur2(key)) % partitions``); the hash is
Austin Appleby's MurmurHash2 with a seed of Kafka's own.
"""

from __future__ import annotations

import struct

__all__ = ["murmur2", "partition_for_key"]

_SEED = 0x9747B28C
_MULTIPLIER = 0x5BD1E995
_MASK = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """The 32-bit MurmurHash2 of ``data``, as an unsigned number."""
    m, mask = _MULTIPLIER, _MASK
    length = len(data)
    h = _SEED ^ length
    whole = length & ~3
    for (k,) in struct.iter_unpack("<I", data[:whole]):
        k = k * m & mask
        k = (k ^ k >> 24) * m & mask
        h = h * m & mask ^ k
    if length > whole:
        h = (h ^ int.from_bytes(data[whole:], "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


def partition_for_key(key: bytes, count: int) -> int:
    """The partition of ``key`` in a topic of ``count`` partitions."""
    return (murmur2(key) & 0x7FFFFFFF) % count
