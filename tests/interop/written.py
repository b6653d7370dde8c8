"""A partition that our own PartitionLog writes, and an account of what a reader should find in it.

What that is is known from what was appended, not from reading it back: there is a `Row` for each
record, with the offset that the log has to give it and the timestamp that counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from logstore.clock import SystemClock
from logstore.config import LogConfig
from logstore.log import PartitionLog
from logstore.segments import filenames
from logstore.segments.batch import encode_batch
from logstore.segments.compression import Codec
from logstore.segments.header import TimestampType
from logstore.segments.record import Record

START_MS = 1_700_000_000_000
"""What the clock says at first."""


class Row(NamedTuple):
    """A record as a reader should find it: with its offset, and with the timestamp that counts."""

    record: Record
    timestamp_type: TimestampType
    sequence: int
    """-1 for a record of no producer."""
    control: str | None
    """For a control record: COMMIT or ABORT."""


@dataclass(frozen=True)
class Partition:
    """A partition that was written and closed, and what stands in it."""

    name: str
    directory: Path
    config: LogConfig
    rows: tuple[Row, ...] = field(repr=False)
    reopened: bool
    """Whether it was closed in between: then its time index has entries from each closing."""

    def files(self, *suffixes: str) -> list[Path]:
        """Its files with these suffixes, segment by segment."""
        return sorted(
            (path for path in self.directory.iterdir() if path.suffix in suffixes),
            key=lambda path: (path.stem, suffixes.index(path.suffix)),
        )

    @property
    def logs(self) -> list[Path]:
        """The segments' logs, in order."""
        return self.files(filenames.LOG)

    @property
    def records(self) -> list[Record]:
        """What consumers see: everything but control records."""
        return [row.record for row in self.rows if row.control is None]


class SetClock(SystemClock):
    """Says the time that it was told."""

    def __init__(self, now_ms: int = START_MS) -> None:
        self.now = now_ms

    def now_ms(self) -> int:
        return self.now


class Writer:
    """Appends to one partition, and keeps account of what a reader should find in it."""

    def __init__(self, root: Path, name: str, **config: Any) -> None:
        self.name = name
        self.directory = root / filenames.partition_directory(name, 0)
        self.config = LogConfig.from_overrides(config)
        self.clock = SetClock()
        self.rows: list[Row] = []
        self._reopened = False
        self._open()

    def _open(self) -> None:
        self.log = PartitionLog(self.directory, config=self.config, clock=self.clock)

    def reopen(self) -> None:
        """Close and open again."""
        self.log.close()
        self._reopened = True
        self._open()

    def finish(self) -> Partition:
        """Close, and say what was written."""
        self.log.close()
        return Partition(
            self.name, self.directory, self.config, tuple(self.rows), reopened=self._reopened
        )

    def append(self, records: Sequence[Record], codec: Codec = Codec.NONE) -> None:
        """A batch of records, encoded by the log."""
        appended = self.log.append(records, acks=1, codec=codec)
        self.account(records, appended.base_offset)

    def append_batch(
        self,
        records: Sequence[Record],
        *,
        origin: Literal["client", "replica"] = "client",
        control: str | None = None,
        **options: Any,
    ) -> None:
        """A ready batch; ``options`` are those of ``encode_batch``."""
        raw = encode_batch(records, control=control is not None, **options)
        appended = self.log.append_raw(raw, acks=1, origin=origin)
        self.account(
            records,
            appended.base_offset,
            control=control,
            sequence=options.get("base_sequence", -1),
            append_timestamp=options.get("append_timestamp"),
            default_timestamp=options.get("default_timestamp", -1),
        )

    def account(
        self,
        records: Sequence[Record],
        base_offset: int,
        *,
        control: str | None = None,
        sequence: int = -1,
        append_timestamp: int | None = None,
        default_timestamp: int | None = None,
    ) -> None:
        """Note that ``records`` were appended at ``base_offset``."""
        if self.config.message_timestamp_type == TimestampType.LOG_APPEND.label:
            append_timestamp = self.clock.now
        if default_timestamp is None:
            default_timestamp = self.clock.now
        for index, record in enumerate(records):
            timestamp = record.timestamp if record.timestamp >= 0 else default_timestamp
            if append_timestamp is not None:
                timestamp = append_timestamp
            self.rows.append(
                Row(
                    Record(
                        base_offset + index,
                        timestamp,
                        record.key,
                        record.value,
                        tuple(record.headers),
                    ),
                    TimestampType(append_timestamp is not None),
                    # Sequences wrap from the largest int32 to 0.
                    sequence if sequence < 0 else (sequence + index) & 0x7FFF_FFFF,
                    control,
                )
            )
