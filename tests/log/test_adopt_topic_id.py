"""A partition that is carried to another topic."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from logstore import InvalidInputError, PartitionLog
from logstore.segments.checkpoint import parse_partition_metadata
from logstore.topic import adopt_topic_id


def test_a_partition_adopts_the_id_of_another_topic(tmp_path: Path) -> None:
    PartitionLog(tmp_path).close()
    for topic_id in (uuid.UUID(int=7), uuid.UUID(int=8)):
        adopt_topic_id(tmp_path, topic_id)
        data = (tmp_path / "partition.metadata").read_bytes()
        assert parse_partition_metadata(data).topic_id == topic_id


def test_what_is_no_partition_or_no_id_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no partition"):
        adopt_topic_id(tmp_path, uuid.UUID(int=7))
    with pytest.raises(InvalidInputError, match="no partition"):
        adopt_topic_id(tmp_path / "missing", uuid.UUID(int=7))
    PartitionLog(tmp_path).close()
    with pytest.raises(InvalidInputError, match="topic id"):
        adopt_topic_id(tmp_path, uuid.UUID(int=0))
    assert not (tmp_path / "partition.metadata").exists()
