"""Repairing partitions: of a store, or copied from a broker.

What is done, and in which order, to one partition, under its locks:

1. The generation in the shared state becomes odd, and the checkpoint in it goes: from now on
   whoever comes derives the state anew, should this process die.
2. A swap that compaction had committed is finished.
3. Each log from which something has to go: what goes is saved beside it; its indexes are removed;
   the log is copied without it, synced and renamed (a torn end of the active segment is cut in
   place, as an opening would do). Commit point: the rename, or the cut's sync. A crash before it
   leaves the log as it was, without indexes, which are disposable; a crash after it the repaired
   one. Either way the next repair goes on from there.
4. Indexes and small files that are wrong are written anew, or set aside where others can write
   them; each is replaced in one step.
5. The state is derived anew from the repaired files and published: other processes notice by its
   generation. Where damage stays in the active segment, which nothing has touched then, the state
   that everybody works with stays as well.

A broker's directory has no ``state``: there 1, 2 and 5 fall away, and no leader epoch is begun.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, NamedTuple

from logstore.check_store import is_store
from logstore.clock import Clock, SystemClock
from logstore.errors import FormatError, InvalidInputError, LockTimeoutError, LogstoreError
from logstore.loader import recover
from logstore.locking import PartitionLock
from logstore.repair_files import (
    aborted_transactions,
    batch_epochs,
    epochs_of,
    new_indexes,
    refuse_beside_broker,
    save_and_cut,
    set_aside,
    set_epochs,
    stored_epochs,
    topic_config,
)
from logstore.repair_metadata import repair_definitions
from logstore.repair_plan import Known, SegmentPlan, epochs_suit, plan_segment, wrong_epochs
from logstore.segments import filenames
from logstore.segments.check import Finding, check
from logstore.segments.checkpoint import format_leader_epochs
from logstore.segments.files import DiskFiles, Files, write_atomically
from logstore.segments.layout import identify, partition_directories
from logstore.segments.transaction_index import encode_entry
from logstore.state import POISONED, STATE_BYTES, LogState, StateFile
from logstore.structure import (
    finish_swaps,
    list_segments,
    read_offset,
    segment_path,
    start_segment,
    write_offset,
)

__all__ = ["Repair", "repair"]

_STATE, _LOCK, _CLEANER_LOCK = "state", "lock", "cleaner"
_INDEXES = (filenames.OFFSET_INDEX, filenames.TIME_INDEX)
_OFFSETS = (filenames.LOG_START_CHECKPOINT, filenames.CLEANER_CHECKPOINT)

_SECOND_LOOK_SECONDS = 0.05
"""How long a batch that is not whole is given to become so, before anything is locked."""

DROP_DAMAGED = "--drop-damaged"

Kind = Literal["cut", "drop", "mend", "build", "aside", "left", "failed"]


class Repair(NamedTuple):
    """Something that was done, or that would be; or a place that is left as it is."""

    kind: Kind
    """``cut``: a torn end; ``drop``: a damaged batch; ``mend``: the leader epoch in a batch's
    header was set right; ``build``: a file was built anew from the
    log; ``aside``: a file that others write anew was renamed; ``left``: still damaged; ``failed``:
    the partition could not be dealt with."""
    path: str
    position: int
    size: int
    """Bytes from ``position`` on; 0 where it concerns the whole file."""
    reason: str
    saved: str | None = None
    """Where what was removed is now."""
    remedy: str | None = None
    """For what is ``left``: the option that would deal with it, if there is one."""


def repair(
    path: str | os.PathLike[str],
    *,
    dry_run: bool = False,
    drop_damaged: bool = False,
    files: Files | None = None,
    clock: Clock | None = None,
    lock_timeout: float = 30.0,
) -> Iterator[Repair]:
    """Repair the partition, the directory of partitions or the store at ``path``.

    Each step is yielded when its partition is done; with ``dry_run`` nothing is changed. What is
    wrong with one partition (its locks included) ends as ``failed``, and the others go on.
    ``drop_damaged`` takes out damaged batches, too; everything that is taken out of a log is saved
    beside it as ``<log>.removed-<position>``. Raises InvalidInputError when ``path`` is no such
    directory, LockTimeoutError where a broker runs on it and something would be changed.
    """
    files = files or DiskFiles()
    path = os.fsdecode(path)
    directories = partition_directories(files, path) if files.is_directory(path) else None
    if directories is None:
        raise InvalidInputError(f"{path}: neither a partition's directory nor one of partitions")
    if not dry_run:
        refuse_beside_broker(path)
    for directory in directories:
        partition = _Partition(
            files, directory, clock or SystemClock(), dry_run, drop_damaged, lock_timeout
        )
        try:
            partition.run()
            failure = None
        except (LogstoreError, OSError) as error:
            failure = Repair("failed", directory, 0, 0, str(error))
        yield from partition.done
        if failure is not None:
            yield failure
    if is_store(files, path):
        for step in repair_definitions(
            path, dry_run=dry_run, files=files, clock=clock or SystemClock()
        ):
            yield Repair(step.kind, step.path, 0, 0, step.reason, step.saved)


class _Partition:
    """The repair of one partition."""

    def __init__(
        self,
        files: Files,
        directory: str,
        clock: Clock,
        dry_run: bool,
        drop_damaged: bool,
        lock_timeout: float,
    ) -> None:
        self._files = files
        self._directory = directory
        self._clock = clock
        self._dry_run = dry_run
        self._drop_damaged = drop_damaged
        self._lock_timeout = lock_timeout
        self._config = topic_config(files, directory)
        self.done: list[Repair] = []
        """What was done so far."""
        self._ours = files.exists(os.path.join(directory, _STATE))
        """Whether processes may share the partition's state."""
        self._log_start: int | None = None
        """The log start offset that everybody works with, if that is known."""

    def run(self) -> None:
        """Find out what is wrong, and repair it. Nothing is locked or made where nothing is."""
        findings = self._findings(waiting=True)
        if not findings:
            return
        if self._dry_run:
            plans = self._plans(findings, self._known(None))
            self._tell_left(plans)
            for plan in plans:
                if self._may_cut(plan):
                    self._note_cuts(plan, [None] * len(plan.cuts))
            whole = all(map(self._may_cut, plans[-1:])) or not self._is_last(plans[-1])
            self._side_files(findings, plans, whole=whole)
            return
        with self._locked(), self._state_file() as state_file:
            self._repair(state_file)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        lock = PartitionLock(
            self._files.lock(os.path.join(self._directory, _LOCK)),
            name=self._directory,
            clock=self._clock,
            timeout=self._lock_timeout,
        )
        cleaner = self._files.lock(os.path.join(self._directory, _CLEANER_LOCK))
        try:
            try:
                cleaner.acquire()
            except BlockingIOError:
                raise LockTimeoutError(
                    f"{self._directory}: another process or thread is compacting or cutting the log"
                ) from None
            with lock.held():
                yield
        finally:
            cleaner.close()
            lock.close()

    @contextlib.contextmanager
    def _state_file(self) -> Iterator[StateFile | None]:
        path = os.path.join(self._directory, _STATE)
        # Asked again: a log may have been opened here for the first time in the meantime.
        self._ours = self._files.exists(path)
        if not self._ours:
            yield None
            return
        state_file = StateFile(self._files.share(path, STATE_BYTES), self._files.boot_id())
        try:
            yield state_file
        finally:
            state_file.close()

    # Looking ----------------------------------------------------------------------------------

    def _findings(self, *, waiting: bool = False) -> list[Finding]:
        """What has to be repaired, by what a check says. Missing indexes are built, too."""
        pause = _SECOND_LOOK_SECONDS if waiting else 0
        found = check(self._files, self._directory, pause=lambda: self._clock.sleep(pause))
        findings = [
            finding
            for finding in found or ()
            if finding.severity == "damage"
            or (finding.path.endswith(_INDEXES) and not self._files.exists(finding.path))
        ]
        for name in _OFFSETS:
            try:
                read_offset(self._files, self._directory, name)
            except FormatError as error:
                path = os.path.join(self._directory, name)
                findings.append(Finding("damage", path, 0, error.reason))
        return findings

    def _plans(self, findings: list[Finding], known: Known) -> list[SegmentPlan]:
        """What has to go from logs, of all segments with which something is wrong."""
        wrong = {finding.path for finding in findings}
        bases = list_segments(self._files, self._directory)
        plans = []
        for base, following in zip(bases, [*bases[1:], None], strict=True):
            path = segment_path(self._directory, base, filenames.LOG)
            next_is_wrong = following is not None and (
                segment_path(self._directory, following, filenames.LOG) in wrong
            )
            if path not in wrong and not next_is_wrong:
                continue
            file = self._files.open(path)
            try:
                plan = plan_segment(file, base, following, known)
            finally:
                file.close()
            if plan.cuts:
                plans.append(plan)
        return plans

    def _may_cut(self, plan: SegmentPlan) -> bool:
        """A log is repaired as a whole, or left as a whole."""
        return self._drop_damaged or not plan.damaged

    def _known(self, state_file: StateFile | None) -> Known:
        """Up to where the active segment was whole once."""
        if state_file is None:
            path = os.path.join(self._directory, _STATE)
            if not self._ours or self._files.size(path) < STATE_BYTES:
                return Known()
            shared = self._files.share(path, STATE_BYTES, write=False)
            state_file = StateFile(shared, self._files.boot_id())
            try:
                return self._known(state_file)
            finally:
                state_file.close()
        state = _trusted(state_file)
        checkpoint = state_file.checkpoint()
        if state is not None:
            return Known(state.active_base, state.valid_end, state.next_offset)
        if checkpoint is not None:
            return Known(checkpoint.active_base, checkpoint.valid_end, checkpoint.next_offset)
        return Known()

    # Repairing --------------------------------------------------------------------------------

    def _repair(self, state_file: StateFile | None) -> None:
        state = None if state_file is None else _trusted(state_file)
        self._log_start = None if state is None else state.log_start_offset
        if state_file is not None and self._has_swaps():
            self._begin(state_file, state)
            finish_swaps(self._files, self._directory)
            state = None
        findings = self._findings()
        known = Known() if state_file is None else self._known(state_file)
        plans = self._plans(findings, known)
        self._tell_left(plans)
        chosen = [plan for plan in plans if self._may_cut(plan)]
        active = list_segments(self._files, self._directory)[-1:]
        whole = not any(plan.base_offset in active for plan in plans if plan not in chosen)
        if state_file is not None and findings:
            self._begin(state_file, state, keep_checkpoint=not whole)
        for plan in chosen:
            in_place = (
                plan.base_offset in active
                and not plan.damaged
                and self._files.links(plan.path) == 1  # a backup may have linked to it
            )
            saved = save_and_cut(self._files, self._directory, plan, in_place=in_place)
            self._note_cuts(plan, saved)
        if chosen and whole:
            self._keep_end(chosen, known)
        if chosen:
            findings = self._findings()
        self._side_files(findings, plans, whole=whole)
        if state_file is not None:
            self._finish(state_file, state, whole=whole)
        self._verify()

    def _has_swaps(self) -> bool:
        names = self._files.names(self._directory)
        return any(
            name.endswith(filenames.LOG + filenames.SWAP)
            and name.removesuffix(filenames.LOG + filenames.SWAP) + filenames.REPLACED in names
            for name in names
        )

    def _begin(
        self, state_file: StateFile, state: LogState | None, *, keep_checkpoint: bool = False
    ) -> None:
        """Make everybody derive the state anew, should this process die on its way."""
        if not keep_checkpoint:
            state_file.drop_checkpoint()
        before = state or state_file.leftover()
        state_file.publish(replace(before, generation=before.generation | 1))

    def _finish(self, state_file: StateFile, state: LogState | None, *, whole: bool) -> None:
        if whole:
            # There is none any more, unless there was nothing to repair. What is left counts.
            state_file.drop_checkpoint()
            derived = recover(
                self._files,
                self._directory,
                self._config,
                state_file,
                known_generation=0,
                sync_failed=lambda: _poison(state_file),
            )
            # In this order: a kill in between must not make the state of an earlier run ours.
            state_file.publish(derived)
            state_file.adopt()
        elif state is not None:
            state_file.publish(replace(state, generation=state.generation + 2))
        # Otherwise the generation stays odd: the log cannot be opened before it is repaired.

    def _keep_end(self, chosen: list[SegmentPlan], known: Known) -> None:
        """Offsets of records that were lost are not given out again: an empty segment holds the
        log's end in its name."""
        bases = list_segments(self._files, self._directory)
        last = next((p for p in chosen if p.base_offset == bases[-1]), None)
        if (
            last is not None
            and last.damaged
            and known.active_base == last.base_offset
            and last.next_offset < known.next_offset
        ):
            start_segment(self._files, self._directory, known.next_offset)

    # The other files --------------------------------------------------------------------------

    def _side_files(
        self, findings: list[Finding], plans: list[SegmentPlan], *, whole: bool = True
    ) -> None:
        """Build or set aside every other file of which ``findings`` say that it is wrong."""
        logs = {segment_path(self._directory, b, filenames.LOG): b for b in self._bases()}
        reasons: dict[str, str] = {}
        for finding in findings:
            path = finding.path
            if path in logs and "leader epoch" in finding.reason:
                path = os.path.join(self._directory, filenames.LEADER_EPOCH_CHECKPOINT)
            reasons.setdefault(path, finding.reason)
        for plan in filter(self._may_cut, plans):
            for suffix in _INDEXES:
                path = segment_path(self._directory, plan.base_offset, suffix)
                reasons[path] = "the log was cut"
        for path, reason in sorted(reasons.items()):
            if path not in logs:
                self._side_file(path, reason, logs, whole=whole)

    def _is_last(self, plan: SegmentPlan) -> bool:
        return plan.base_offset == self._bases()[-1]

    def _bases(self) -> tuple[int, ...]:
        return list_segments(self._files, self._directory)

    def _side_file(self, path: str, reason: str, logs: dict[str, int], *, whole: bool) -> None:
        known = identify(path)
        base = None if known is None else known.base_offset
        log = path.removesuffix("" if known is None else known.kind.value) + filenames.LOG
        suffix = "" if known is None else known.kind.value
        if log in logs and suffix in _INDEXES:
            if not whole and base == self._bases()[-1]:
                text = "it goes with a log that is left damaged"
                self._note("left", path, text, remedy=DROP_DAMAGED)
                return
            if not self._dry_run:
                indexes = new_indexes(self._files, log, logs[log], self._config)
                write_atomically(self._files, path, indexes[_INDEXES.index(suffix)])
            self._note("build", path, reason)
        elif log in logs and suffix == filenames.TRANSACTION_INDEX:
            if not self._dry_run:
                entries = aborted_transactions(self._files, self._directory)[logs[log]]
                write_atomically(self._files, path, b"".join(map(encode_entry, entries)))
            self._note("build", path, reason)
        elif suffix == filenames.LEADER_EPOCH_CHECKPOINT:
            self._epochs(path, reason)
        elif self._log_start is not None and path.endswith(filenames.LOG_START_CHECKPOINT):
            write_offset(self._files, self._directory, os.path.basename(path), self._log_start)
            self._note("build", path, reason)
        else:
            saved = None if self._dry_run else set_aside(self._files, path)
            self._note("aside", path, reason, saved=saved)

    def _epochs(self, path: str, reason: str) -> None:
        """Set the leader epochs of batches right, and build the checkpoint anew if it is wrong."""
        stored = stored_epochs(self._files, self._directory)
        found = batch_epochs(self._files, self._directory)
        wrong = wrong_epochs(found, stored)
        right = {(at.path, at.position): at.epoch for at in wrong}
        for log in dict.fromkeys(at.path for at in wrong):
            if not self._dry_run:
                set_epochs(self._files, log, [at for at in wrong if at.path == log])
        for at in found:
            epoch = right.get((at.path, at.position))
            if epoch is not None:
                text = f"its leader epoch was {at.epoch}, among others of {epoch}"
                self.done.append(Repair("mend", at.path, at.position, 0, text))
        found = [at._replace(epoch=right.get((at.path, at.position), at.epoch)) for at in found]
        if epochs_suit(found, stored) or not self._files.exists(path):
            return
        if not self._dry_run:
            write_atomically(self._files, path, format_leader_epochs(epochs_of(found, stored)))
        self._note("build", path, reason)

    # Telling ----------------------------------------------------------------------------------

    def _note(
        self,
        kind: Kind,
        path: str,
        reason: str,
        *,
        saved: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.done.append(Repair(kind, path, 0, 0, reason, saved, remedy))

    def _note_cuts(self, plan: SegmentPlan, saved: list[str | None]) -> None:
        for cut, where in zip(plan.cuts, saved, strict=True):
            kind: Kind = "cut" if cut.kind == "torn" else "drop"
            self.done.append(
                Repair(kind, plan.path, cut.position, cut.size, cut.reason, saved=where)
            )

    def _tell_left(self, plans: list[SegmentPlan]) -> None:
        for plan in plans:
            if not self._may_cut(plan):
                for cut in plan.cuts:
                    self.done.append(
                        Repair(
                            "left",
                            plan.path,
                            cut.position,
                            cut.size,
                            cut.reason,
                            remedy=DROP_DAMAGED,
                        )
                    )

    def _verify(self) -> None:
        """Whatever a check still finds is told."""
        told = {done.path for done in self.done if done.kind == "left"}
        for finding in self._findings():
            if finding.severity == "damage" and finding.path not in told:
                self.done.append(Repair("left", finding.path, finding.position, 0, finding.reason))


def _trusted(state_file: StateFile) -> LogState | None:
    """The shared state, if everybody works with it."""
    state = LogState.unpack(state_file.block())
    if state is None or state.generation & 1 or not state_file.is_ours():
        return None
    return None if state.flags & POISONED else state


def _poison(state_file: StateFile) -> None:
    """A sync failed: the next opening must not believe that another one saves anything."""
    generation = state_file.leftover().generation | 1
    state_file.publish(LogState(generation=generation, flags=POISONED))
    state_file.adopt()
