"""Where the program begins: ready for Ctrl-C before it imports what takes time.

Imports take most of a short command's life. Ctrl-C in the middle of one would end in a traceback,
or in none: in some places Python passes over a KeyboardInterrupt and goes on. While nothing but
imports is going on there is nothing to clean up, so the program simply ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

__all__ = ["importing", "main"]

_KEPT_BYTES = 16 << 20
INTERRUPTED = 130
"""The exit code after Ctrl-C, by the shells' convention."""


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Let Ctrl-C end the program at once, while the block imports what takes time.

    Where Ctrl-C is not Python's own to handle (it is ignored, or another program handles it, or
    this is not the main thread), nothing is changed.
    """
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        try:
            signal.signal(signal.SIGINT, _end)
        except ValueError:  # not the main thread
            ours = False
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(signum: int, frame: object) -> None:
    with contextlib.suppress(OSError):
        os.write(2, b"logstore: interrupted\n")
    os._exit(INTERRUPTED)


def _keep_memory() -> None:
    """Have the allocator keep what is freed, instead of giving it back and asking for it again.

    Logs are read in pieces of a mebibyte. glibc would return each to the system and be given fresh
    pages for the next: a fault for every page that is read, and two fifths of the time of ``find``.
    It changes its mind (M_TRIM_THRESHOLD) by the largest block that was ever freed. This one is
    never touched, so it takes no memory itself.
    """
    bytes(_KEPT_BYTES // 2)


def main() -> None:
    """Run the program, and exit."""
    _keep_memory()
    with importing():
        from logstore.cli.main import main as program
    try:
        program()
    finally:
        # Nothing is left to be done, and Python's own end is no place for a KeyboardInterrupt.
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
