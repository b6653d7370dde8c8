"""Draws docs/screens/*.svg: commands, run here, with what they print at a terminal.

    make screens

Each command is the real one, run at a pseudo-terminal on a store that is made for it; what it
prints is drawn with its colours. Times in it are those of the run.
"""

from __future__ import annotations

import fcntl
import importlib.util
import io
import os
import pty
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

import logstore

ROOT = Path(__file__).resolve().parent.parent
SCREENS = ROOT / "docs" / "screens"
COLUMNS, LINES = 110, 50
_PROMPT = "$ "
_DEBUGGER_PROMPT = "(replay) "
_MARK = "-- next --"
_LONGEST_SECONDS = 60


class Screen(NamedTuple):
    """A picture: what is run, and how much of what it prints is shown."""

    name: str
    command: str
    lines: int = LINES
    """Lines of output that are shown; behind more of them stands an ellipsis."""
    session: tuple[str, ...] = ()
    """What is typed, where the command is an interactive session."""


SCREENS_TO_DRAW = (
    Screen("dump", "logstore dump data/topics/web-0"),
    Screen("hexdump", "logstore hexdump data/topics/shop-0 --offset 1", 41),
    Screen("index", "logstore index data/topics/web-0 --offset 4321"),
    Screen("stats", "logstore stats shop --top 5", 44),
    Screen(
        "debug",
        "logstore replay shop --fold shop.py:ledger --debug",
        session=(
            "goto 1199",
            "until min(state.balances) < 0",
            "print min(state.balances)",
            "back",
            "diff",
        ),
    ),
    Screen(
        "bisect",
        "logstore replay shop --fold shop.py:ledger --bisect 'min(state.balances) < 0' --context 2",
    ),
    Screen("ledger", "logstore queue ledger payments"),
)


def environment() -> dict[str, str]:
    """Of a terminal with colours, in a folder with a store."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    size = {"COLUMNS": f"{COLUMNS}", "LINES": f"{LINES}"}
    kept = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    return {
        **kept,
        **size,
        "PATH": path,
        "TERM": "xterm-256color",
        "LOGSTORE_DIR": "data",
        "PYTHONUTF8": "1",
        "TZ": "UTC",
    }


@contextmanager
def prepared(place: Path) -> Iterator[None]:
    """The store that the pictures are of: a shop's books, its payments, a web server's log.

    It is in use meanwhile: some messages are held."""
    shutil.copy(ROOT / "examples" / "shop.py", place)
    spec = importlib.util.spec_from_file_location("shop", place / "shop.py")
    assert spec is not None
    assert spec.loader is not None
    shop = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(shop)
    with logstore.open(place / "data") as store:
        log = store.create_topic("shop").partition(0)
        events = shop.events()
        for start in range(0, len(events), 50):
            log.append(events[start : start + 50], acks=1, codec=logstore.Codec.GZIP)
        web = store.create_topic("web").partition(0)
        lines = (ROOT / "examples" / "data" / "apache_access_6k.log").read_bytes().splitlines()
        for start in range(0, len(lines), 500):
            values = lines[start : start + 500]
            records = [logstore.Record(timestamp=shop.START_MS + start, value=v) for v in values]
            web.append(records, acks=1, codec=logstore.Codec.ZSTD)
        orders = store.exchange("orders", type="topic")
        payments = store.queue("payments", delivery_limit=5)
        payments.bind(orders, "order.*.due")
        for number in range(1, 13):
            orders.publish(b'{"order": %d}' % number, routing_key=f"order.{number}.due")
        messages = [payments.get() for _ in range(6)]
        for number, message in enumerate(messages):
            assert message is not None
            if number in (0, 1, 3):
                message.ack(flush=True)
            elif number == 4:
                message.nack()
        yield


def output_of(screen: Screen, place: Path) -> str:
    """What the command prints at a terminal; raises CalledProcessError where it fails."""
    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    typed = "".join(f"{line}\nprint {_MARK!r}\n" for line in screen.session)
    with subprocess.Popen(
        shlex.split(screen.command),
        cwd=place,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=terminal,
        stderr=terminal,
    ) as process:
        os.close(terminal)
        assert process.stdin is not None
        process.stdin.write(typed.encode())
        process.stdin.close()
        found = b""
        while True:
            try:
                part = os.read(master, 1 << 16)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            found += part
        os.close(master)
        code = process.wait(_LONGEST_SECONDS)
    if code:
        raise subprocess.CalledProcessError(code, screen.command, found)
    return found.decode("utf-8").replace("\r\n", "\n")


def drawn(screen: Screen, output: str) -> str:
    """The picture of a command and what it printed."""
    console = Console(
        record=True,
        width=COLUMNS,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
    )
    console.print(Text(f"{_PROMPT}{screen.command}", style="bold"), soft_wrap=True)
    if screen.session:
        parts = output.split(_MARK)
        shown = [parts[0]] if len(parts) == 1 else parts
        for line, part in zip(screen.session, shown, strict=False):
            console.print(Text(f"{_DEBUGGER_PROMPT}{line}", style="bold cyan"))
            console.print(Text.from_ansi(_trimmed(part)), soft_wrap=False)
    else:
        lines = output.rstrip("\n").split("\n")
        console.print(Text.from_ansi("\n".join(lines[: screen.lines])), soft_wrap=False)
        if len(lines) > screen.lines:
            console.print(Text("...", style="dim"))
    svg = console.export_svg(title=screen.command.split(" --")[0], theme=MONOKAI)
    return svg.replace("<svg ", '<svg xml:space="preserve" ', 1)  # lines may begin with spaces


def _trimmed(part: str) -> str:
    """The output of one command of a session, without the quotes of the marks around it."""
    return part.strip("\n").removeprefix('"').removesuffix('"').strip("\n")


def main(names: list[str]) -> None:
    """Draw all pictures, or those that are named."""
    SCREENS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        with prepared(place):
            for screen in SCREENS_TO_DRAW:
                if not names or screen.name in names:
                    path = SCREENS / f"{screen.name}.svg"
                    path.write_text(drawn(screen, output_of(screen, place)), encoding="utf-8")
                    print(f"drew {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main(sys.argv[1:])
