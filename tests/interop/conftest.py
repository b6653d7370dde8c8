"""What the tests of this folder share: the corpus, written once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from .corpus import build
from .written import Partition


@pytest.fixture(scope="session")
def partitions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Partition]]:
    """Every partition of the corpus. They belong to all tests: copy what is to be changed."""
    root = tmp_path_factory.mktemp("corpus")
    yield build(root)
    shutil.rmtree(root)
