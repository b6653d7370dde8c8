"""Scripts as processes of their own, which say what they have done line by line, and are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["Program", "programs"]


class Program:
    """A process, and the lines that it has said so far."""

    def __init__(self, script: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, os.fspath(script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONSAFEPATH": "1"},
        )
        self.lines: list[str] = []
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.endswith(b"\n"):
                self.lines.append(line.decode().strip())

    def said(self, word: str) -> list[list[str]]:
        """What stands behind a word, line by line."""
        found = (line.split() for line in list(self.lines))
        return [words[1:] for words in found if words and words[0] == word]

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def leave(self) -> None:
        """Let it end by itself."""
        assert self.process.stdin is not None
        if not self.process.stdin.closed:
            self.process.stdin.close()
        assert self.process.wait(60) == 0
        self._thread.join(60)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(60)
        self._thread.join(60)
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with suppress(BrokenPipeError):
                stream.close()


@contextmanager
def programs(script: Path) -> Iterator[Callable[..., Program]]:
    """Starts ``script`` with arguments, and options as the last one; kills all in the end."""
    started: list[Program] = []

    def start(*arguments: str, **options: object) -> Program:
        started.append(Program(script, *arguments, json.dumps(options)))
        return started[-1]

    try:
        yield start
    finally:
        for program in started:
            if program.process.poll() is None:
                program.signal(signal.SIGCONT)
            program.kill()
