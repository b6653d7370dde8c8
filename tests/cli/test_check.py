"""``logstore check``: exit codes, lines and objects. What is found is tested with the library."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.segments.partitions import FIRST_INDEX, LAST_LOG, on_disk, two_segments

from .program import GOLDEN, json_lines, run
