"""Sessions: who lives, seen from other handles and processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from logstore import ForkedError
from logstore.segments.files import DiskFiles, FileLock
from logstore.sessions import Sessions

from .support import child_environment

HOLDER = """
import sys
from logstore.segments.files import DiskFiles
from logstore.sessions import Sessions
print(Sessions(sys.argv[1], DiskFiles()).own, flush=True)
sys.stdin.read()
"""


def holder(store: Path) -> tuple[subprocess.Popen[str], str]:
    """A process with a session, and the session's id."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, os.fspath(store)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=child_environment(),
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    process.stdout.close()


def test_a_session_lives_until_it_is_closed(tmp_path: Path) -> None:
    mine, other = (Sessions(str(tmp_path), DiskFiles()) for _ in "12")
    assert mine.own == mine.own != other.own
    for _ in range(3):
        assert mine.is_alive(mine.own)
        assert mine.is_alive(other.own)
    gone = other.own
    other.close()
    other.close()
    assert not mine.is_alive(gone)
    assert not mine.is_alive("never was")
    assert os.listdir(tmp_path / "procs") == [mine.own]
    mine.close()


def test_a_killed_process_is_dead_at_once_and_a_stopped_one_is_not(tmp_path: Path) -> None:
    sessions = Sessions(str(tmp_path), DiskFiles())
    process, session_id = holder(tmp_path)
    process.send_signal(signal.SIGSTOP)
    assert sessions.is_alive(session_id)
    end(process)
    assert not sessions.is_alive(session_id)
    sessions.close()


def test_sweeping_removes_what_dead_processes_left_and_nothing_else(tmp_path: Path) -> None:
    sessions = Sessions(str(tmp_path), DiskFiles())
    sessions.sweep()
    own = sessions.own
    (dead, dead_id), (alive, alive_id) = holder(tmp_path), holder(tmp_path)
    end(dead)
    assert sorted(os.listdir(tmp_path / "procs")) == sorted([own, dead_id, alive_id])
    sessions.sweep()
    assert sorted(os.listdir(tmp_path / "procs")) == sorted([own, alive_id])
    assert sessions.is_alive(alive_id)
    end(alive)
    sessions.close()


def test_a_session_that_was_swept_before_it_was_locked_is_begun_anew(tmp_path: Path) -> None:
    class Swept(DiskFiles):
        count = 0

        def lock(self, path: str) -> FileLock:
            lock = super().lock(path)
            self.count += 1
            if self.count == 1:
                os.remove(path)
            return lock

    files = Swept()
    sessions = Sessions(str(tmp_path), files)
    own = sessions.own
    assert os.listdir(tmp_path / "procs") == [own]
    assert files.count == 2
    sessions.close()


def test_who_may_not_look_takes_others_for_alive(tmp_path: Path) -> None:
    class Forbidden(DiskFiles):
        def lock(self, path: str) -> FileLock:
            raise PermissionError(13, "Permission denied", path)

    sessions = Sessions(str(tmp_path), DiskFiles())
    assert Sessions(str(tmp_path), Forbidden()).is_alive(sessions.own)
    sessions.close()


def test_a_child_of_fork_does_not_end_its_parents_session(tmp_path: Path) -> None:
    sessions, other = (Sessions(str(tmp_path), DiskFiles()) for _ in "12")
    own = sessions.own
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with pytest.raises(ForkedError):
                _ = sessions.own
            sessions.close()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert other.is_alive(own)
    sessions.close()
    assert not other.is_alive(own)
    other.close()
