"""Who reads standard output: whether it takes more, has taken all, or is gone."""

from __future__ import annotations

import array
import io
import os
import select
import stat
import sys
import time

try:
    import fcntl
    import termios
except ImportError:  # Windows
    _HAS_IOCTL = False
else:
    _HAS_IOCTL = True

__all__ = ["can_be_written", "nobody_reads", "wait_until_taken"]

_SHORTEST_PAUSE = 0.0005
_LONGEST_PAUSE = 0.02


def nobody_reads() -> bool:
    """Whether the other end of standard output is closed."""
    if os.name == "nt":
        return False
    return bool(_output_events(0) & (select.POLLERR | select.POLLHUP))  # these are always told


def can_be_written() -> bool:
    """Whether standard output takes something at once."""
    return os.name == "nt" or bool(_output_events(select.POLLOUT) & select.POLLOUT)


def wait_until_taken() -> None:
    """Return when whoever reads has taken from the pipe what was written to it.

    Raises BrokenPipeError when nobody reads any more and something is left. What is no pipe, and
    a pipe that does not tell, has taken everything.
    """
    pause = _SHORTEST_PAUSE
    while _bytes_in_pipe():
        if nobody_reads():
            raise BrokenPipeError
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def _bytes_in_pipe() -> int:
    descriptor = _output_descriptor()
    if descriptor is None or not _HAS_IOCTL or not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        return 0
    count = array.array("i", [0])
    try:
        fcntl.ioctl(descriptor, termios.FIONREAD, count)
    except OSError:
        return 0
    return count[0]


def _output_descriptor() -> int | None:
    try:
        return sys.stdout.fileno()
    except (io.UnsupportedOperation, ValueError):
        return None


def _output_events(wanted: int) -> int:
    """Which of the ``wanted`` events, and of errors, there are at standard output now."""
    descriptor = _output_descriptor()
    if descriptor is None:
        return wanted
    poll = select.poll()
    poll.register(descriptor, wanted)
    return sum(events for _, events in poll.poll(0))
