"""Tables of text, and the before and after of a partition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from logstore.cli.output import Lines, one_line
from logstore.log import PartitionLog
from logstore.retention import SegmentInfo

__all__ = ["Extent", "print_changes", "print_table"]


def print_table(lines: Lines, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows in aligned columns; where a column holds numbers only, they stand at its right."""
    rows = [list(map(one_line, row)) for row in rows]
    numeric = [all(_is_number(cell) for cell in column) for column in zip(*rows, strict=True)]
    right = numeric or [False] * len(columns)
    if lines.console is not None:
        table = Table(box=None, header_style="bold")
        for column, at_right in zip(columns, right, strict=True):
            table.add_column(column, justify="right" if at_right else "left", overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))  # a name in brackets is no style
        lines.console.print(table)
        return
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        cells = (
            cell.rjust(width) if at_right else cell.ljust(width)
            for cell, width, at_right in zip(row, widths, right, strict=True)
        )
        lines.line("  ".join(cells).rstrip())


def _is_number(cell: str) -> bool:
    return cell.replace(",", "").replace(".", "", 1).removeprefix("-").isdigit()


class Extent(NamedTuple):
    """How large a partition is, and which offsets it holds."""

    segments: int
    bytes: int
    first_offset: int
    next_offset: int

    @classmethod
    def of(cls, log: PartitionLog) -> Extent:
        """The extent of a log as it is now."""
        return cls.of_segments(log.segment_infos(), log.log_start_offset)

    @classmethod
    def of_segments(cls, segments: Sequence[SegmentInfo], first_offset: int) -> Extent:
        """The extent of a log that consists of these segments."""
        return cls(
            len(segments),
            sum(segment.size for segment in segments),
            first_offset,
            segments[-1].next_offset if segments else first_offset,
        )

    def fields(self) -> dict[str, Any]:
        """As a JSON object."""
        return self._asdict()


_COLUMNS = ("PARTITION", "", "SEGMENTS", "BYTES", "FIRST OFFSET", "NEXT OFFSET")


def print_changes(lines: Lines, changes: Sequence[tuple[str, Extent, Extent]]) -> None:
    """Print the before and after of partitions, two rows for each."""
    rows = []
    for name, before, after in changes:
        for label, extent in (("before", before), ("after", after)):
            cells = (
                f"{extent.segments:,}",
                f"{extent.bytes:,}",
                f"{extent.first_offset}",
                f"{extent.next_offset}",
            )
            rows.append((name if label == "before" else "", label, *cells))
    if rows:
        print_table(lines, _COLUMNS, rows)
