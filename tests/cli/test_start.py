"""Where the program begins: Ctrl-C while it imports, and what it imports."""

from __future__ import annotations

import platform
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from logstore.cli.main import main
from logstore.cli.start import importing

INTERRUPTING = """
import os, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
from logstore.cli.start import main
main()
"""


def start(program: str, *words: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", program, *words]
    return subprocess.run(command, capture_output=True, timeout=60, check=False)


@pytest.mark.parametrize("module", ["click", "logstore.cli.output", "lmdb", "logstore.cli.topic"])
def test_ctrl_c_in_an_import_ends_the_program_in_one_line(module: str, tmp_path: Path) -> None:
    words = ("--store", str(tmp_path / "store"), "topic", "create", "t")
    ended = start(INTERRUPTING.format(module=module), *words)
    assert (ended.returncode, ended.stderr) == (130, b"logstore: interrupted\n")
    assert not (tmp_path / "store").exists()


def test_ctrl_c_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    ignoring = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    program = ignoring + INTERRUPTING.format(module="logstore.cli.topic")
    ended = start(program, "--store", str(tmp_path / "store"), "topic", "create", "t")
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_imports_leave_the_handler_of_ctrl_c_as_it_was() -> None:
    before = signal.getsignal(signal.SIGINT)
    assert main.get_command(click.Context(main), "dump") is not None
    assert signal.getsignal(signal.SIGINT) is before
    with importing():
        pass
    assert signal.getsignal(signal.SIGINT) is before


def test_a_command_that_looks_into_files_imports_no_store() -> None:
    told = start(
        "import sys; from logstore.cli.main import main\n"
        "try:\n    main(['check', '--help'])\n"
        "finally:\n    print('logstore.store' in sys.modules, file=sys.stderr)"
    )
    assert told.stderr == b"False\n"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that gives pages back")
def test_large_pieces_are_read_into_pages_that_are_there() -> None:
    program = """
import resource, tempfile
import logstore.cli.start as start

def faults_of_reading(file):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(64):
        file.seek(0)
        piece = file.read(1 << 20)
        rows = [piece[n : n + 100_000] for n in range(0, len(piece), 100_000)]
        del piece, rows
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with tempfile.TemporaryFile(buffering=0) as file:
    file.write(bytes(1 << 20))
    start._keep_memory()
    print(faults_of_reading(file))
"""
    told = start(program)
    assert told.stderr == b""
    assert int(told.stdout) < 64 * 256 / 4  # of all pages
