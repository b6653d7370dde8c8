"""Configuration: types, bounds, spelling."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from logstore import Codec, InvalidInputError, LogConfig, PartitionLog, Record


def test_every_key_has_a_default_within_its_bounds_and_a_description() -> None:
    assert LogConfig() == LogConfig.from_overrides({})
    assert LogConfig().overrides() == {}
    assert LogConfig.keys().keys() == {field.name for field in dataclasses.fields(LogConfig)}
    for key, description in LogConfig.keys().items():
        assert description.endswith((".", ".)")), key
        assert len(description) > 20


NUMBERS = [
    ("segment_bytes", "14 to 2147483647", 13, 1 << 31),
    ("index_interval_bytes", "0 to 2147483647", -1, 1 << 31),
    ("segment_index_bytes", "12 to 2147483647", 11, 1 << 31),
    ("max_message_bytes", "61 to 536870912", 60, (1 << 29) + 1),
]


@pytest.mark.parametrize(("key", "bounds", "low", "high"), NUMBERS, ids=[n[0] for n in NUMBERS])
def test_a_number_out_of_bounds_is_told_its_bounds(
    key: str, bounds: str, low: int, high: int
) -> None:
    for number in (low, high, str(low)):
        with pytest.raises(InvalidInputError) as caught:
            LogConfig.from_overrides({key: number})
        assert str(caught.value) == f"{key}={number} is out of bounds: {bounds}"
    for number in (low + 1, high - 1):
        assert getattr(LogConfig.from_overrides({key: number}), key) == number
        assert getattr(LogConfig.from_overrides({key: str(number)}), key) == number


@pytest.mark.parametrize("value", ["", "many", "1.5", 1.5, None, True, [], b"100", "0x10"])
@pytest.mark.parametrize("key", [n[0] for n in NUMBERS])
def test_what_is_no_whole_number_is_refused(key: str, value: Any) -> None:
    with pytest.raises(InvalidInputError, match=f"{key} takes a whole number, not "):
        LogConfig.from_overrides({key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("compression_type", "brotli"),
        ("compression_type", "none"),
        ("compression_type", None),
        ("compression_type", ""),
        ("message_timestamp_type", "createtime"),
        ("message_timestamp_type", 0),
    ],
)
def test_what_is_no_choice_is_told_the_choices(key: str, value: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        LogConfig.from_overrides({key: value})
    assert str(caught.value).startswith(f"{key} is one of ")
    assert str(caught.value).endswith(f"; not {value!r}")


def test_dots_are_as_good_as_underscores() -> None:
    config = LogConfig.from_overrides({"segment.bytes": "1000", "compression.type": "zstd"})
    assert config == LogConfig(segment_bytes=1000, compression_type="zstd")
    assert config.overrides() == {"segment_bytes": 1000, "compression_type": "zstd"}


def test_an_override_with_the_default_is_none() -> None:
    assert LogConfig(segment_bytes=1 << 30).overrides() == {}


@pytest.mark.parametrize("key", ["no.such.key", "segment-bytes", "SEGMENT_BYTES", "", "overrides"])
def test_an_unknown_key_is_named_as_it_was_spelled(key: str) -> None:
    with pytest.raises(InvalidInputError, match=f"no configuration key is called {key!r}"):
        LogConfig.from_overrides({key: 1})


def test_a_configuration_is_checked_as_a_whole_and_cannot_be_changed() -> None:
    with pytest.raises(InvalidInputError, match="segment_bytes"):
        LogConfig(segment_bytes=0, compression_type="zstd")
    with pytest.raises(dataclasses.FrozenInstanceError):
        LogConfig().segment_bytes = 5  # type: ignore[misc]


@pytest.mark.parametrize("requested", Codec)
def test_the_topic_decides_about_compression_unless_it_leaves_it_to_the_producer(
    requested: Codec,
) -> None:
    assert LogConfig().codec_for(requested) is requested
    assert LogConfig(compression_type="uncompressed").codec_for(requested) is Codec.NONE
    assert LogConfig(compression_type="lz4").codec_for(requested) is Codec.LZ4


@pytest.mark.parametrize("codec", [5, 9, 16, -1, True, None, "zstd"])
def test_what_is_no_codec_is_refused_before_anything_is_appended(
    codec: Any, tmp_path: Path
) -> None:
    with PartitionLog(tmp_path) as log:
        with pytest.raises(InvalidInputError, match="is no codec"):
            log.append([Record(value=b"v" * 50)], codec=codec)
        assert log.log_end_offset == 0
        for number in range(5):
            log.append([Record(value=b"v" * 50)], codec=number)  # type: ignore[arg-type]
        assert [record.value for record in log.read(0).records()] == [b"v" * 50] * 5


@pytest.mark.parametrize("key", [1, None, b"segment_bytes"])
def test_a_key_that_is_no_text_is_unknown(key: Any) -> None:
    with pytest.raises(InvalidInputError, match="no configuration key is called"):
        LogConfig.from_overrides({key: 1})


def test_a_key_in_both_spellings_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="retention_ms is given twice"):
        LogConfig.from_overrides({"retention.ms": 5, "retention_ms": 6})
