"""The options of a producer: names, defaults and bounds."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from logstore import InvalidInputError
from logstore.producer_config import ProducerConfig
from logstore.segments.compression import Codec

INT32_MAX, INT64_MAX = (1 << 31) - 1, (1 << 63) - 1

KAFKA = {
    "acks": "all",
    "batch_size": 16384,
    "linger_ms": 5,
    "buffer_memory": 33554432,
    "max_block_ms": 60000,
    "compression_type": "none",
    "retries": 2147483647,
    "retry_backoff_ms": 100,
    "retry_backoff_max_ms": 1000,
    "delivery_timeout_ms": 120000,
    "max_request_size": 1048576,
    "enable_idempotence": True,
}


def test_the_defaults_are_kafkas() -> None:
    config = ProducerConfig()
    assert {key: getattr(config, key) for key in KAFKA} == KAFKA
    ours = {field.name for field in dataclasses.fields(config)} - set(KAFKA)
    assert ours == {"compression_level", "producer_name", "partitioner"}
    assert config.codec is Codec.NONE


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"acks": 2}, r"acks=2 is none of 0, 1, 'all'"),
        ({"acks": True}, r"acks=True is none of"),
        ({"acks": "1"}, r"acks='1' is none of"),
        ({"acks": -1}, r"acks=-1 is none of"),
        ({"batch_size": -1}, r"batch_size=-1 is out of bounds: a whole number, 0 to 536870912"),
        ({"batch_size": 1 << 30}, r"batch_size=1073741824 is out of bounds"),
        ({"linger_ms": -1}, rf"linger_ms=-1 is out of bounds: a whole number, 0 to {INT64_MAX}"),
        ({"linger_ms": 1.5}, r"linger_ms=1.5 is out of bounds"),
        ({"buffer_memory": "1"}, rf"buffer_memory='1' is out of bounds: .* 0 to {INT64_MAX}"),
        ({"max_block_ms": -1}, rf"max_block_ms=-1 is out of bounds: .* 0 to {INT64_MAX}"),
        (
            {"compression_type": "zip"},
            r"compression_type='zip' is none of 'none', 'gzip'",
        ),
        ({"compression_level": "9"}, r"compression_level='9' is no level"),
        ({"compression_level": 3}, r"none has no compression levels"),
        (
            {"compression_type": "gzip", "compression_level": 10},
            r"level 10 is out of bounds: 1 to 9",
        ),
        ({"retries": -1}, rf"retries=-1 is out of bounds: a whole number, 0 to {INT32_MAX}"),
        ({"retries": INT32_MAX + 1}, r"retries=2147483648 is out of bounds"),
        ({"retry_backoff_ms": -1}, r"retry_backoff_ms=-1 is out of bounds"),
        ({"retry_backoff_max_ms": -1}, r"retry_backoff_max_ms=-1 is out of bounds"),
        ({"delivery_timeout_ms": -1}, rf"delivery_timeout_ms=-1 is out of .* 0 to {INT32_MAX}"),
        ({"delivery_timeout_ms": 4}, r"delivery_timeout_ms=4 must not be below linger_ms=5"),
        ({"max_request_size": -1}, r"max_request_size=-1 is out of bounds: .* 0 to 536870912"),
        ({"enable_idempotence": 1}, r"enable_idempotence=1 is none of True, False"),
        ({"producer_name": ""}, r"producer_name='' is no name: 1 to 255 characters"),
        ({"producer_name": "x" * 256}, r"is no name: 1 to 255 characters"),
        ({"producer_name": b"x"}, r"producer_name=b'x' is no name"),
        (
            {"producer_name": "x", "enable_idempotence": False},
            r"producer_name needs enable_idempotence",
        ),
        ({"partitioner": "murmur2"}, r"partitioner='murmur2' is no function"),
        ({"buffer_memory": 16383}, r"batch_size=16384 must not be above buffer_memory=16383"),
        (
            {"lingerms": 5},
            r"a producer has no option called 'lingerms'; there are acks",
        ),
    ],
)
def test_what_is_wrong_with_an_option_is_told_with_its_bounds(
    options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InvalidInputError, match=problem):
        ProducerConfig.from_options(options)


@pytest.mark.parametrize(
    "options",
    [
        {"acks": 0, "batch_size": 0, "linger_ms": 0, "retries": 0, "delivery_timeout_ms": 0},
        {"linger_ms": 0, "max_block_ms": INT64_MAX, "retry_backoff_ms": INT64_MAX},
        {"compression_type": "zstd", "compression_level": -5, "producer_name": "é" * 255},
        {"partitioner": lambda *_: 0, "buffer_memory": INT64_MAX},
    ],
)
def test_bounds_are_allowed(options: dict[str, Any]) -> None:
    config = ProducerConfig.from_options(options)
    assert {key: getattr(config, key) for key in options} == options
