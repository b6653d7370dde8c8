"""Changes to the set of a partition's files, and how each one is finished after a crash.

Every function here runs under the partition's lock, between an odd and an even generation of the
state (``LogWriter.restructure``). A process that dies in between leaves the generation odd; whoever
comes next derives the state anew (``logstore.loader.recover``), which calls :func:`finish_swaps`
and :func:`drop_below` first.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence

from logstore.segments import filenames
from logstore.segments.checkpoint import format_offset, parse_offset
from logstore.segments.errors import FormatError, TruncatedError
from logstore.segments.files import File, Files, read_bounded, write_atomically, write_fully

__all__ = [
    "CLEANER_LOCK",
    "NO_ROOM",
    "UNSWAPPED",
    "copy_bytes",
    "delete_segments",
    "drop_below",
    "drop_snapshots",
    "finish_swaps",
    "list_segments",
    "list_snapshots",
    "purge",
    "read_offset",
    "remove_below",
    "remove_segment",
    "remove_tree",
    "rewrite_log",
    "segment_path",
    "start_segment",
    "swap_in",
    "write_note",
    "write_offset",
]

SEGMENT_SUFFIXES = (
    filenames.LOG,
    filenames.OFFSET_INDEX,
    filenames.TIME_INDEX,
    filenames.TRANSACTION_INDEX,
)
_MAX_NOTE_BYTES = 16 << 20
_COPY_BYTES = 1 << 20

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""The errors of a full disk."""

CLEANER_LOCK = "cleaner"
"""The file that whoever compacts or cuts the log holds a lock on."""

UNSWAPPED = (
    filenames.CLEANED,
    filenames.REPLACED,
    filenames.REPLACED + filenames.TEMPORARY,
)
"""What a compaction that does not come to its swap leaves lying about."""

_UNFINISHED = (*UNSWAPPED, filenames.SWAP, filenames.LOG + filenames.TEMPORARY)


def list_segments(files: Files, directory: str) -> tuple[int, ...]:
    """The base offsets of the segments in a directory, ascending."""
    return _offsets_of(files.names(directory), filenames.LOG)


def list_snapshots(files: Files, directory: str) -> tuple[int, ...]:
    """The offsets of the producer snapshots in a directory, ascending."""
    return _offsets_of(files.names(directory), filenames.PRODUCER_SNAPSHOT)


def _offsets_of(names: Iterable[str], wanted: str) -> tuple[int, ...]:
    parsed = map(filenames.parse_segment_file, names)
    return tuple(sorted(offset for offset, suffix in filter(None, parsed) if suffix == wanted))


def segment_path(directory: str, base_offset: int, suffix: str) -> str:
    """The path of a segment's file."""
    return os.path.join(directory, filenames.segment_file(base_offset, suffix))


def start_segment(files: Files, directory: str, base_offset: int) -> None:
    """Make the three empty files of a segment.

    Commit point: the directory's sync. A crash before it leaves the segment or not; it is empty,
    so both are the same log.
    """
    for suffix in (filenames.OFFSET_INDEX, filenames.TIME_INDEX, filenames.LOG):
        file = files.open(segment_path(directory, base_offset, suffix), write=True, create=True)
        file.truncate(0)
        file.close()
    files.sync_directory(directory)


def remove_segment(files: Files, directory: str, base_offset: int) -> None:
    """Take back what ``start_segment`` made, as far as it came.

    Commit point: the directory's sync. The segment must not come back behind a power cut, when the
    one before it has grown beyond its offset.
    """
    for suffix in (filenames.LOG, filenames.OFFSET_INDEX, filenames.TIME_INDEX):
        _remove(files, segment_path(directory, base_offset, suffix))
    files.sync_directory(directory)


def read_offset(files: Files, directory: str, name: str) -> int | None:
    """The offset in the small file ``name``, or None where there is no such file."""
    path = os.path.join(directory, name)
    try:
        return parse_offset(read_bounded(files, path, 1 << 10))
    except FileNotFoundError:
        return None
    except FormatError as error:
        raise error.at(path, 0) from None


def write_offset(files: Files, directory: str, name: str, offset: int) -> None:
    """Replace the small file ``name``."""
    write_atomically(files, os.path.join(directory, name), format_offset(offset))


def copy_bytes(source: File, target: File, size: int) -> None:
    """Copy the first ``size`` bytes of a file to the beginning of another.

    Raises TruncatedError when ``source`` has fewer.
    """
    position = 0
    while position < size:
        data = source.read_at(min(_COPY_BYTES, size - position), position)
        if not data:
            raise TruncatedError(
                "the file has become shorter", path=source.path, expected=size, found=position
            )
        write_fully(target, data, position)
        position += len(data)


def rewrite_log(files: Files, log: File, size: int, rest: bytes = b"") -> None:
    """Put a new file in the place of ``log``: its first ``size`` bytes, and ``rest`` behind them.

    Commit point: the rename. A crash before it leaves the old file and a ``.tmp`` beside it, which
    the next recovery removes; after it, the new one, which is on stable storage.
    """
    temporary = log.path + filenames.TEMPORARY
    copy = files.open(temporary, write=True, create=True)
    try:
        copy.truncate(0)
        copy_bytes(log, copy, size)
        if rest:
            write_fully(copy, rest, size)
        copy.sync()
    finally:
        copy.close()
    files.rename(temporary, log.path)
    files.sync_directory(os.path.dirname(log.path))


def delete_segments(files: Files, directory: str, bases: Iterable[int]) -> None:
    """Rename the files of segments, so that they are no longer part of the log; they are removed
    later, since somebody may still read them.

    The log goes last: a segment whose log is still there is whole but for indexes, which are
    disposable.
    """
    renamed = False
    for base in bases:
        for suffix in reversed(SEGMENT_SUFFIXES):
            path = segment_path(directory, base, suffix)
            if files.exists(path):
                files.rename(path, path + filenames.DELETED)
                renamed = True
    if renamed:
        files.sync_directory(directory)


def drop_below(files: Files, directory: str, log_start_offset: int) -> None:
    """Finish a retention: the segments that lie wholly below the log start offset go.

    Commit point of a retention: the log start offset in its checkpoint. After it, readers are
    refused what lies below, whether the files are still there or not.
    """
    bases = list_segments(files, directory)
    below = [base for base, following in itertools.pairwise(bases) if following <= log_start_offset]
    delete_segments(files, directory, below)


def drop_snapshots(files: Files, directory: str, *, end: int) -> None:
    """Remove the producer snapshots that nobody needs: those behind ``end``, which speak of what
    is not in the log, and those that neither belong to a segment nor are the newest.

    Snapshots are caches. But one behind the end must not come back after a power cut, when the log
    has grown beyond its offset again, with other records: hence the directory's sync.
    """
    names = files.names(directory)
    for name in names:
        if name.endswith(filenames.PRODUCER_SNAPSHOT + filenames.TEMPORARY):
            _remove(files, os.path.join(directory, name))
    offsets = _offsets_of(names, filenames.PRODUCER_SNAPSHOT)
    if not offsets:
        return
    newest = max((offset for offset in offsets if offset <= end), default=-1)
    kept = {newest, *_offsets_of(names, filenames.LOG)}
    for offset in offsets:
        if offset > end or offset not in kept:
            _remove(files, segment_path(directory, offset, filenames.PRODUCER_SNAPSHOT))
    if offsets[-1] > end:
        files.sync_directory(directory)


def remove_below(files: Files, directory: str, log_start_offset: int) -> Iterator[int]:
    """Remove the segments wholly below ``log_start_offset`` for good, one at each step, and say
    which: where the disk is full, there is no room for a checkpoint that says that they go.

    What has been deleted before goes first. Then the oldest segment, its log last. Commit point:
    the directory's sync, one for each segment, so that a power cut brings none back in front of
    a hole. A crash leaves a log that begins with a later segment, whose name says where.
    """
    purge(files, directory, (filenames.DELETED,))
    yield -1
    for base, following in itertools.pairwise(list_segments(files, directory)):
        if following > log_start_offset:
            return
        for suffix in reversed(SEGMENT_SUFFIXES):
            _remove(files, segment_path(directory, base, suffix))
        files.sync_directory(directory)
        yield base


def swap_in(files: Files, directory: str, base: int, replaced: Sequence[int]) -> None:
    """Put the cleaned files of segment ``base`` in the place of the segments ``replaced``.

    The cleaned files and a note of what they replace are on stable storage, names included.
    Commit point: the rename of the log from ``.cleaned`` to ``.swap``. A crash before it leaves
    the old segments (and files that the next cleaning removes), a crash after it is rolled forward
    by :func:`finish_swaps`.
    """
    log = segment_path(directory, base, filenames.LOG)
    files.rename(log + filenames.CLEANED, log + filenames.SWAP)
    files.sync_directory(directory)
    _finish_swap(files, directory, base, replaced)


def _finish_swap(files: Files, directory: str, base: int, replaced: Sequence[int]) -> None:
    present = set(list_segments(files, directory))
    delete_segments(files, directory, [b for b in replaced if b in present])
    for suffix in reversed(SEGMENT_SUFFIXES[1:]):
        path = segment_path(directory, base, suffix)
        if files.exists(path + filenames.CLEANED):
            files.rename(path + filenames.CLEANED, path)
    log = segment_path(directory, base, filenames.LOG)
    files.rename(log + filenames.SWAP, log)
    files.sync_directory(directory)
    _remove(files, segment_path(directory, base, filenames.REPLACED))


def write_note(files: Files, directory: str, base: int, replaced: Sequence[int]) -> None:
    """Note which segments the cleaned segment ``base`` replaces."""
    data = "".join(f"{number}\n" for number in replaced).encode()
    write_atomically(files, segment_path(directory, base, filenames.REPLACED), data)


def _read_note(files: Files, directory: str, base: int) -> list[int] | None:
    path = segment_path(directory, base, filenames.REPLACED)
    try:
        return [int(line) for line in read_bounded(files, path, _MAX_NOTE_BYTES).split()]
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise FormatError("this is no note of replaced segments", path=path, found=error) from None


def finish_swaps(files: Files, directory: str) -> None:
    """Roll every swap that was committed forward, and take back what was not."""
    names = files.names(directory)
    for name in names:
        if not name.endswith(filenames.LOG + filenames.SWAP):
            continue
        parsed = filenames.parse_segment_file(name.removesuffix(filenames.SWAP))
        if parsed is None:
            continue
        replaced = _read_note(files, directory, parsed[0])
        if replaced is None:
            raise FormatError(
                "a swap has no note of what it replaces; it is not one of ours",
                path=os.path.join(directory, name),
            )
        _finish_swap(files, directory, parsed[0], replaced)
    _purge_unfinished(files, directory)


def _purge_unfinished(files: Files, directory: str) -> None:
    """Remove what was never swapped in, unless somebody is at work on it.

    Cleaned segments are written outside the partition's lock, under the cleaner's: a recovery after
    one process was killed must not take away what another one is writing.
    """
    if not any(name.endswith(_UNFINISHED) for name in files.names(directory)):
        return
    lock = files.lock(os.path.join(directory, CLEANER_LOCK))
    try:
        with contextlib.suppress(BlockingIOError):
            lock.acquire()
            purge(files, directory, _UNFINISHED)
    finally:
        lock.close()


def purge(files: Files, directory: str, suffixes: Sequence[str]) -> None:
    """Remove the files whose names end in one of ``suffixes``."""
    for name in files.names(directory):
        if name.endswith(tuple(suffixes)):
            _remove(files, os.path.join(directory, name))


def _remove(files: Files, path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        files.remove(path)


def remove_tree(files: Files, path: str) -> None:
    """Remove a directory and everything in it; others may be at it, too."""
    with contextlib.suppress(FileNotFoundError):
        for name in files.names(path):
            inside = os.path.join(path, name)
            if files.is_directory(inside):
                remove_tree(files, inside)
            else:
                with contextlib.suppress(FileNotFoundError):
                    files.remove(inside)
        files.remove_directory(path)
