"""A sink that is another program: it gets a line for each record on its standard input."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from logstore.fetcher import ConsumerRecord
from logstore.replay.errors import ReplayError
from logstore.replay.sink import LinesSink, SinkEnded

__all__ = ["ProcessSink", "ended"]


class ProcessSink:
    """One run of a shell command, which is fed lines until there are no more.

    A record counts as delivered when it is in the pipe. The command has a session of its own, so
    Ctrl-C does not reach it: it reads what is in the pipe, and then its input ends.
    """

    is_exact = False

    def __init__(self, command: str, form: Callable[[ConsumerRecord], bytes]) -> None:
        """Its output goes where ours does."""
        self.identity: Mapping[str, Any] = {"command": command}
        self._command = command
        self._process = subprocess.Popen(
            command, shell=True, stdin=subprocess.PIPE, start_new_session=True
        )
        assert self._process.stdin is not None
        self._input = self._process.stdin
        self._lines = LinesSink(command, form, self._input.write, self._input.flush)

    @property
    def delivered(self) -> int:
        """How many records it has taken."""
        return self._lines.delivered

    def write(self, records: Sequence[ConsumerRecord]) -> None:
        """Write lines into the pipe; raises SinkEnded when the command has ended well, and
        ReplayError when it has not."""
        try:
            self._lines.write(records)
            self._input.flush()
        except BrokenPipeError:
            self._end()
            raise SinkEnded from None

    def flush(self) -> None:
        """Nothing is held back."""

    def position(self) -> Mapping[str, Any] | None:
        """It cannot tell."""
        return None

    def restore(self, position: Mapping[str, Any] | None) -> None:
        """It knows of nothing."""

    def close(self) -> None:
        """End the command's input, and wait until it has ended; raises ReplayError unless it has
        ended well."""
        self._end()

    def _end(self) -> None:
        try:
            self._input.close()
        except BrokenPipeError:
            pass  # it has read enough
        finally:
            try:
                status = self._process.wait()
            except BaseException:  # somebody does not want to wait
                self._process.kill()
                self._process.wait()
                raise
        if status:
            raise ReplayError(f"{self._command!r} {ended(status)}")


def ended(status: int) -> str:
    """How a process has ended."""
    if status < 0:
        return f"was ended by signal {-status}"
    return f"ended with status {status}"
