"""Checking: does what lies on disk hold together?

Everything is read and nothing written, and no error ends a check: what is wrong comes out as a
:class:`Finding` with its place. ``damage`` is what no writer leaves behind but by an accident;
a ``note`` is worth knowing and no harm, as a missing index, which is built anew when needed.

What is checked, file by file:

- ``.log``: batches whole, one behind the other; checksums; records that fill their batch, with
  offsets and timestamps as its header says; offsets that ascend through all segments.
- ``.index``, ``.timeindex``: see ``logstore.segments.check_index``.
- ``.txnindex``, ``.snapshot``, ``leader-epoch-checkpoint``, ``partition.metadata``: their form, and
  that their offsets and epochs suit the log.

A partition that is in use may be checked. Side files are read before the log where it grows first,
and behind it where they do; a batch that is being written at the log's end gets a second look.
"""

from __future__ import annotations

import errno
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from logstore.segments import checkpoint, producer_snapshot, transaction_index
from logstore.segments.batch import Batch
from logstore.segments.check_batch import batch_problems
from logstore.segments.check_index import IndexCheck, OffsetIndexCheck, Problem, TimeIndexCheck
from logstore.segments.errors import FormatError
from logstore.segments.files import File, Files, read_bounded
from logstore.segments.layout import (
    FileKind,
    PartitionFile,
    identify,
    partition_directories,
    partition_files,
)
from logstore.segments.scan import Damage, look_twice

__all__ = ["Finding", "Totals", "check"]

_MAX_SIDE_FILE_BYTES = 256 << 20
"""An index of a segment of 2 GiB with an entry for every batch of 64 bytes has this size."""

_SECOND_LOOK_SECONDS = 0.05
_MAX_RELATIVE_OFFSET = (1 << 31) - 1

_INDEXES: dict[FileKind, type[OffsetIndexCheck] | type[TimeIndexCheck]] = {
    FileKind.OFFSET_INDEX: OffsetIndexCheck,
    FileKind.TIME_INDEX: TimeIndexCheck,
}


class Finding(NamedTuple):
    """Something that is wrong, or worth knowing, at a place of a file."""

    severity: Literal["damage", "note"]
    path: str
    position: int
    """The byte of the file where it is; 0 where it concerns the whole file."""
    reason: str
    """One sentence, with what was expected and found."""
    expected: str | None = None
    found: str | None = None


@dataclass(slots=True)
class Totals:
    """What a check has looked at so far, and how much of it was wrong."""

    partitions: int = 0
    """Directories."""
    files: int = 0
    """Files of all kinds."""
    segments: int = 0
    """Files that hold batches."""
    batches: int = 0
    """Whole batches, whether or not they were right."""
    records: int = 0
    """Records in batches whose checksum was right."""
    bytes: int = 0
    """Bytes of segments."""
    damage: int = 0
    """Findings that are damage."""
    notes: int = 0
    """Findings that are notes."""


def check(
    files: Files,
    path: str,
    *,
    totals: Totals | None = None,
    pause: Callable[[], None] = lambda: time.sleep(_SECOND_LOOK_SECONDS),
) -> Iterator[Finding] | None:
    """What is wrong at ``path``: a file of a partition, a partition, a directory of partitions or
    a store. None where it is nothing of that sort.

    ``totals`` is counted up as the findings are taken. ``pause`` lets a writer go on before the
    second look at a batch that is not whole. Raises OSError where ``path`` itself cannot be read.
    """
    totals = Totals() if totals is None else totals
    if files.is_directory(path):
        directories = partition_directories(files, path)
        if directories is None:
            return None
        return _counted(_check_directories(files, directories, totals, pause), totals)
    file = identify(path)
    if file is None:
        return None
    files.size(path)  # is it there, and may it be read?
    return _counted(_check_file(files, file, totals, pause), totals)


def _counted(findings: Iterator[Finding], totals: Totals) -> Iterator[Finding]:
    for finding in findings:
        if finding.severity == "damage":
            totals.damage += 1
        else:
            totals.notes += 1
        yield finding


def _check_directories(
    files: Files, directories: list[str], totals: Totals, pause: Callable[[], None]
) -> Iterator[Finding]:
    for directory in directories:
        totals.partitions += 1
        partition = _Partition(files, totals, pause)
        yield from partition.check(partition_files(files, directory))


def _check_file(
    files: Files, file: PartitionFile, totals: Totals, pause: Callable[[], None]
) -> Iterator[Finding]:
    """A segment with its indexes, or the one file that was asked for."""
    partition = _Partition(files, totals, pause)
    if file.kind not in (FileKind.LOG, *_INDEXES):
        yield from partition.check([file])
        return
    beside = [file]
    for kind in (FileKind.LOG, *_INDEXES):
        path = file.path.removesuffix(file.kind.value) + kind.value
        if file.base_offset is not None and kind is not file.kind and files.exists(path):
            beside.append(PartitionFile(path, kind, file.base_offset))
    for finding in partition.check(beside):
        if file.kind is FileKind.LOG or finding.path == file.path:
            yield finding


@dataclass(slots=True)
class _EpochRun:
    """Batches of one leader epoch, one behind the other."""

    epoch: int
    first_offset: int
    """Base offset of the first of them."""
    last_offset: int
    """Base offset of the last of them."""
    path: str
    position: int
    """Of the first of them."""


@dataclass
class _Partition:
    """The check of one partition, and what it remembers from segment to segment."""

    files: Files
    totals: Totals
    pause: Callable[[], None]
    next_offset: int | None = None
    """The first offset that may come next; None before the first batch."""
    end_known: bool = True
    """Whether the last segment could be read to its end."""
    epochs: list[_EpochRun] = field(default_factory=list)
    """The leader epochs that were met, in the order of the batches."""

    def check(self, all_files: list[PartitionFile]) -> Iterator[Finding]:
        """The findings of the files of a partition, which are in order."""
        by_kind: dict[FileKind, dict[int | None, PartitionFile]] = defaultdict(dict)
        for file in all_files:
            by_kind[file.kind][file.base_offset] = file
        logs = by_kind[FileKind.LOG]
        last_base = max((base for base in logs if base is not None), default=None)
        for base, log in logs.items():
            self.totals.files += 1
            beside = {kind: by_kind[kind].get(base) for kind in _INDEXES}
            aborted = by_kind[FileKind.TRANSACTION_INDEX].get(base)
            yield from self._guarded(log, self._segment(log, beside, active=base == last_base))
            if aborted is not None:
                yield from self._guarded(aborted, self._transaction_index(aborted))
        for file in all_files:
            if file.kind is FileKind.LOG:
                continue
            self.totals.files += 1
            if file.base_offset not in logs:
                yield from self._guarded(file, self._without_log(file))
            if file.kind is FileKind.PRODUCER_SNAPSHOT:
                yield from self._guarded(file, self._snapshot(file))
            elif file.kind is FileKind.LEADER_EPOCHS:
                yield from self._guarded(file, self._leader_epochs(file))
            elif file.kind is FileKind.PARTITION_METADATA:
                yield from self._guarded(file, self._metadata(file))

    def _guarded(self, file: PartitionFile, findings: Iterator[Finding]) -> Iterator[Finding]:
        """What cannot be read is a finding, and not the end of the check."""
        try:
            yield from findings
        except FileNotFoundError:
            yield Finding("note", file.path, 0, "the file was removed in the meantime")
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            reason = f"the file cannot be read: {error.strerror or error}"
            yield Finding("damage", file.path, 0, reason)
            self.end_known = False
        except FormatError as error:
            yield _from_error(error.at(file.path, 0))

    # A segment ------------------------------------------------------------------------------

    def _segment(
        self,
        log: PartitionFile,
        beside: dict[FileKind, PartitionFile | None],
        *,
        active: bool,
    ) -> Iterator[Finding]:
        indexes: list[tuple[str, IndexCheck]] = []
        for kind, file in beside.items():
            if file is not None:
                yield from self._guarded(file, self._open_index(file, indexes, active=active))
            elif log.base_offset is not None:
                yield Finding(
                    "note",
                    log.path.removesuffix(FileKind.LOG.value) + kind.value,
                    0,
                    "the index is missing; it can be built from the log",
                )
        self.totals.segments += 1
        self.end_known = True
        file_of_log = self.files.open(log.path)
        try:
            yield from self._batches(log, file_of_log, indexes, active=active)
        finally:
            file_of_log.close()

    def _open_index(
        self, file: PartitionFile, indexes: list[tuple[str, IndexCheck]], *, active: bool
    ) -> Iterator[Finding]:
        data = self._read(file)
        index = _INDEXES[file.kind](data, file.base_offset or 0, may_be_torn=active)
        indexes.append((file.path, index))
        yield from ()

    def _batches(
        self,
        log: PartitionFile,
        file: File,
        indexes: list[tuple[str, IndexCheck]],
        *,
        active: bool,
    ) -> Iterator[Finding]:
        end = 0
        base = log.base_offset
        if base is not None and self.next_offset is not None and base < self.next_offset:
            yield _finding(
                log.path,
                Problem(
                    0,
                    "the segment begins inside the one before it",
                    f"a base offset of at least {self.next_offset}",
                    f"{base}",
                ),
            )
        if base is not None:
            self.next_offset = base
        for item in look_twice(file, self.pause if active else None):
            if isinstance(item, Damage):
                end = item.position + item.size
                yield Finding(
                    "damage", log.path, item.position, item.reason, item.expected, item.found
                )
                for _, index in indexes:
                    index.damage(end)
                self.end_known = False
                continue
            header = item.header
            end = item.position + header.size
            trusted = yield from self._batch(log, item)
            self.end_known = trusted
            for path, index in indexes:
                index.batch(item.position, header, trusted=trusted)
                for problem in index.problems and index.take():
                    yield _finding(path, problem)
        self.totals.bytes += end
        grown = file.size() > end
        ahead = active
        for path, index in indexes:
            # Behind a damaged end, or one that moves on, an entry may lead to what was not seen.
            if self.end_known and not grown:
                ahead = index.finish(end, ahead=ahead)
            for problem in index.take():
                yield _finding(path, problem)
        self.end_known &= not grown

    def _batch(self, log: PartitionFile, batch: Batch) -> Generator[Finding, None, bool]:
        """The findings of one batch; returns whether its header can be believed."""
        header = batch.header
        self.totals.batches += 1
        problems = list(batch_problems(batch))
        if not batch.crc_ok:
            for problem in problems:
                yield _finding(log.path, problem)
            return False
        self.totals.records += header.record_count
        if self.next_offset is not None and header.base_offset < self.next_offset:
            problems.append(
                Problem(
                    batch.position,
                    "the offsets do not ascend",
                    f"a base offset of at least {self.next_offset}",
                    f"{header.base_offset}",
                )
            )
        if (
            log.base_offset is not None
            and header.last_offset - log.base_offset > _MAX_RELATIVE_OFFSET
        ):
            problems.append(
                Problem(
                    batch.position,
                    "the offset is too far from the segment's base for an index",
                    f"at most {log.base_offset + _MAX_RELATIVE_OFFSET}",
                    f"{header.last_offset}",
                )
            )
        else:  # where one of two is wrong it may be the first: go on from the second
            self.next_offset = header.next_offset
        problems += self._epoch_problems(log, batch)
        for problem in problems:
            yield _finding(log.path, problem)
        return True

    def _epoch_problems(self, log: PartitionFile, batch: Batch) -> Iterator[Problem]:
        """An epoch that goes back is a note: Kafka takes it from a leader with a warning, and drops
        from the checkpoint what contradicts it. One that the checkpoint contradicts is damage."""
        epoch, base_offset = batch.header.leader_epoch, batch.header.base_offset
        if epoch < -1:
            yield Problem(batch.position, "the leader epoch is negative", "-1 or more", f"{epoch}")
        if epoch < 0:
            return
        last = self.epochs[-1] if self.epochs else None
        if last is not None and last.epoch == epoch:
            last.last_offset = base_offset
            return
        self.epochs.append(_EpochRun(epoch, base_offset, base_offset, log.path, batch.position))
        if last is not None and epoch < last.epoch:
            yield Problem(
                batch.position,
                "the leader epochs go back",
                f"at least {last.epoch}",
                f"{epoch}",
                severity="note",
            )

    # The other files ------------------------------------------------------------------------

    def _read(self, file: PartitionFile) -> bytes:
        return read_bounded(self.files, file.path, _MAX_SIDE_FILE_BYTES)

    def _without_log(self, file: PartitionFile) -> Iterator[Finding]:
        """An index whose segment is not there: all that can be asked is whether it ascends."""
        if file.kind in _INDEXES:
            index = _INDEXES[file.kind](self._read(file), file.base_offset or 0)
            for problem in index.take():
                yield _finding(file.path, problem)
            yield Finding("note", file.path, 0, "there is no log beside it to compare it with")
        elif file.kind is FileKind.TRANSACTION_INDEX:
            yield from self._transaction_index(file, alone=True)

    def _transaction_index(self, file: PartitionFile, *, alone: bool = False) -> Iterator[Finding]:
        """Every entry names a transaction that was aborted in the segment just read."""
        last_offset = (file.base_offset or 0) - 1
        size = transaction_index.ENTRY_BYTES
        for number, entry in enumerate(transaction_index.decode_entries(self._read(file))):
            wrong = Problem(
                number * size,
                "the offsets of an aborted transaction are wrong",
                f"a marker behind {max(last_offset, entry.first_offset)}"
                + ("" if alone or self.next_offset is None else f", below {self.next_offset}"),
                f"first offset {entry.first_offset}, marker at {entry.last_offset}",
            )
            if (
                entry.first_offset < 0
                or entry.last_offset <= max(last_offset, entry.first_offset)
                or not (
                    alone
                    or not self.end_known
                    or self.next_offset is None
                    or entry.last_offset < self.next_offset
                )
            ):
                yield _finding(file.path, wrong)
            last_offset = entry.last_offset

    def _snapshot(self, file: PartitionFile) -> Iterator[Finding]:
        data = self._read(file)
        try:
            entries = producer_snapshot.decode(data)
        except FormatError:
            # A broker writes it in place: what is not whole gets a second look. An empty one tells
            # nobody anything wrong, and whoever opens the log passes over it.
            self.pause()
            data = self._read(file)
            if not data:
                yield Finding("note", file.path, 0, "the snapshot is empty: it was begun only")
                return
            entries = producer_snapshot.decode(data)
        for number, entry in enumerate(entries):
            latest = max(entry.last_offset, entry.current_transaction_first_offset)
            if file.base_offset is not None and latest >= file.base_offset:
                yield _finding(
                    file.path,
                    Problem(
                        producer_snapshot.HEADER_BYTES + number * producer_snapshot.ENTRY_BYTES,
                        "a producer's offset is not older than the snapshot",
                        f"less than {file.base_offset}",
                        f"{latest}",
                    ),
                )

    def _leader_epochs(self, file: PartitionFile) -> Iterator[Finding]:
        """The checkpoint lists every epoch of the batches, where it begins, and no later one."""
        entries = checkpoint.parse_leader_epochs(self._read(file))
        if self.next_offset is not None and self.end_known and entries:
            start = entries[-1].start_offset
            if start > self.next_offset:
                yield _finding(
                    file.path,
                    Problem(
                        0,
                        f"epoch {entries[-1].epoch} begins behind the log's end",
                        f"at most {self.next_offset}",
                        f"{start}",
                    ),
                )
        for run in self.epochs:
            for offset in (run.first_offset, run.last_offset):
                valid = [entry.epoch for entry in entries if entry.start_offset <= offset]
                if valid and valid[-1] != run.epoch:
                    yield _finding(
                        run.path,
                        Problem(
                            run.position,
                            f"the leader epoch of the batch of offset {offset} is not the one "
                            "in the checkpoint",
                            f"{valid[-1]}",
                            f"{run.epoch}",
                        ),
                    )
                    break

    def _metadata(self, file: PartitionFile) -> Iterator[Finding]:
        checkpoint.parse_partition_metadata(self._read(file))
        yield from ()


def _finding(path: str, problem: Problem) -> Finding:
    reason = problem.text
    if problem.expected is not None:
        reason += f": expected {problem.expected}, found {problem.found}"
    return Finding(
        problem.severity, path, problem.position, reason, problem.expected, problem.found
    )


def _from_error(error: FormatError) -> Finding:
    expected = None if error.expected is None else str(error.expected)
    found = None if error.found is None else str(error.found)
    path, position = error.path or "", error.position or 0
    return Finding("damage", path, position, error.reason, expected, found)
