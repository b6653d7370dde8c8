"""How a producer behaves: Kafka's names and, where they make sense on one machine, its defaults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from logstore.errors import InvalidInputError
from logstore.options import INT32_MAX, INT64_MAX, Options, integer, one_of, option
from logstore.segments.batch import MAX_BATCH_BYTES
from logstore.segments.compression import Codec, compress

__all__ = ["MAX_PRODUCER_NAME_LENGTH", "Partitioner", "ProducerConfig"]

MAX_PRODUCER_NAME_LENGTH = 255

Partitioner = Callable[[str, bytes | None, bytes | None, int], int]
"""Chooses a partition from topic, key, value, and the number of partitions."""


def _name(key: str, value: Any) -> str | None:
    if value is None or (isinstance(value, str) and 0 < len(value) <= MAX_PRODUCER_NAME_LENGTH):
        return None
    return f"{key}={value!r:.50} is no name: 1 to {MAX_PRODUCER_NAME_LENGTH} characters"


def _level(key: str, value: Any) -> str | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return None
    return f"{key}={value!r} is no level: a whole number, or None for the codec's default"


def _function(key: str, value: Any) -> str | None:
    if value is None or callable(value):
        return None
    return f"{key}={value!r} is no function of topic, key, value and number of partitions"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerConfig(Options):
    """Raises InvalidInputError, naming key and bounds."""

    owner: ClassVar[str] = "a producer"

    acks: Literal[0, 1, "all"] = option("all", one_of(0, 1, "all"))
    """When a record counts as delivered: at once, when the operating system has it, or when it is
    on stable storage."""
    batch_size: int = option(16_384, integer(0, MAX_BATCH_BYTES))
    """A batch is sent when its records would take more bytes than this, uncompressed. It takes as
    much of ``buffer_memory`` while it is being filled; 0 makes a batch of each record."""
    linger_ms: int = option(5, integer(0, INT64_MAX))
    """And after this time at the latest, so that others may join it; 0 sends each record at once.
    (Kafka's default since 4.0.)"""
    buffer_memory: int = option(32 << 20, integer(0, INT64_MAX))
    """Bytes of records that may wait for their delivery. The objects that hold them take more."""
    max_block_ms: int = option(60_000, integer(0, INT64_MAX))
    """How long ``send`` waits for room in it, before BufferExhaustedError."""
    compression_type: str = option("none", one_of(*(codec.label for codec in Codec)))
    """How batches are compressed, unless the topic's configuration says otherwise."""
    compression_level: int | None = option(None, _level)
    """The codec's own level; None is its default."""
    retries: int = option(INT32_MAX, integer(0))
    """How often a batch is tried again where that may help, within ``delivery_timeout_ms``."""
    retry_backoff_ms: int = option(100, integer(0, INT64_MAX))
    """The pause ahead of the first retry; each further one is twice as long..."""
    retry_backoff_max_ms: int = option(1000, integer(0, INT64_MAX))
    """... up to this."""
    delivery_timeout_ms: int = option(120_000, integer(0))
    """How long a record may wait to be written, before DeliveryTimeoutError."""
    max_request_size: int = option(1 << 20, integer(0, MAX_BATCH_BYTES))
    """The largest batch, uncompressed, and so the largest record."""
    enable_idempotence: bool = option(True, one_of(True, False))
    """Whether batches bear a producer's id and sequence numbers, by which one that is tried again
    is recognised."""
    producer_name: str | None = option(None, _name)
    """A name under which the producer comes back: it keeps its id, fences the instance before it,
    and goes on with its sequence numbers."""
    partitioner: Partitioner | None = option(None, _function)  # noqa: RUF009 - it makes a field
    """Chooses the partition where ``send`` names none; None: by the key's hash, as Kafka's Java
    client, and for null keys one partition for each batch, at random."""

    def check(self) -> None:
        """Raise InvalidInputError where options contradict each other."""
        if self.batch_size > self.buffer_memory:
            raise InvalidInputError(
                f"batch_size={self.batch_size} must not be above "
                f"buffer_memory={self.buffer_memory}, of which each batch takes as much"
            )
        if self.delivery_timeout_ms < self.linger_ms:
            raise InvalidInputError(
                f"delivery_timeout_ms={self.delivery_timeout_ms} must not be below "
                f"linger_ms={self.linger_ms}"
            )
        if self.producer_name is not None and not self.enable_idempotence:
            raise InvalidInputError("producer_name needs enable_idempotence")
        compress(self.codec, b"", self.compression_level)  # which says what is wrong with a level

    @property
    def codec(self) -> Codec:
        """How batches are compressed."""
        return Codec.named(self.compression_type)
