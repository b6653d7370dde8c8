"""``logstore replay --debug``: sessions through a pipe and at a terminal, word for word."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import logstore
from logstore.cli.debugger import COMMANDS
from logstore.segments.record import Record

from .program import COMMAND, only_line, run

pty = pytest.importorskip("pty")
fcntl = pytest.importorskip("fcntl")
termios = pytest.importorskip("termios")

NOW = 1_700_000_000_000

FOLD = '''
def account(state, record):
    """Changes its state in place."""
    state = {"balance": 0, "orders": []} if state is None else state
    state["balance"] += int(record.value)
    if record.value.startswith(b"-"):
        state["orders"].append(record.offset)
    return state


def broken(state, record):
    if record.offset == 3:
        raise RuntimeError("planted")
    return (state or 0) + 1
'''

AMOUNTS = [100, -30, -40, 20, -80, 90, -10]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "replayfold.py").write_text(FOLD)
    with logstore.open(tmp_path / "store", maintenance_interval=None) as opened:
        log = opened.create_topic("shop").partition(0)
        for n, amount in enumerate(AMOUNTS):
            log.append([Record(timestamp=NOW + 1000 * n, key=b"a", value=b"%d" % amount)], acks=1)
    return tmp_path / "store"


def at(offset: int) -> str:
    """How the record at an offset is shown."""
    return (
        f"=> shop-0 {offset}  2023-11-14T22:13:{20 + offset}.000Z  "
        f'key="a" value="{AMOUNTS[offset]}"'
    )


SCRIPT = """
# Comments and blank lines are passed over.
next
next 2
where
back
state
break state.balance < 0
continue
diff
print state.balance + offset
back
until len(state.orders) == 4
goto 0
goto 2023-11-14T22:13:22Z
goto end
next
goto start
back
watch len(state.orders)
c
break
delete 1
delete 2
break
l 1
quit
next
"""

GOLDEN = f"""\
{at(0)}
     state: null -> {{"balance":100,"orders":[]}}
{at(2)}
     state.balance: 100 -> 30
   + state.orders[0]: 1
   + state.orders[1]: 2
behind 3 records: shop-0, offset 2, 2023-11-14T22:13:22.000Z; 3 of 7
{at(1)}
     state.balance: 30 -> 70
   - state.orders[1]: 2
balance: 70
orders: [1]
breakpoint 1: state.balance < 0
breakpoint 1: state.balance < 0
{at(4)}
     state.balance: 50 -> -30
   + state.orders[2]: 4
     state.balance: 50 -> -30
   + state.orders[2]: 4
-26
{at(3)}
     state.balance: -30 -> 50
   - state.orders[2]: 4
it is true here
{at(6)}
     state.balance: 60 -> 50
   + state.orders[3]: 6
{at(0)}
     state: null -> {{"balance":100,"orders":[]}}
{at(2)}
     state.balance: 70 -> 30
   + state.orders[1]: 2
this is the end
{at(6)}
     state.balance: 60 -> 50
   + state.orders[3]: 6
this is the end
{at(6)}
     nothing
=> in front of the first record
this is the beginning
=> in front of the first record
watch 2: len(state.orders)
watch 2: len(state.orders): null -> 0
{at(0)}
     state: null -> {{"balance":100,"orders":[]}}
breakpoint 1: state.balance < 0
watch 2: len(state.orders)
no breakpoints, and nothing is watched
{at(0)}
   {at(1)[3:]}
"""


def test_a_script_through_a_pipe_word_for_word(store: Path) -> None:
    result = run("replay shop --fold replayfold:account --debug", store=store, stdin=SCRIPT)
    assert result.stdout == GOLDEN
    assert result.stderr == ""


KYE = (
    "logstore: expression 'kye', column 1: there is no 'kye'; there are topic, partition, "
    "offset, timestamp, key, value, json, headers, record, state"
)


def test_a_script_goes_on_behind_what_was_wrong_and_ends_with_1(store: Path) -> None:
    script = "nope\nnext x\nbreak kye\nc\nb 99\nprint\ngoto\ngoto 99\nn 2\nstate now\nrest\nw\n"
    result = run("replay shop --fold replayfold:account --debug", store=store, stdin=script, code=1)
    assert result.stderr.splitlines() == [
        "logstore: there is no command 'nope'; 'help' lists those that there are",
        "logstore: 'x' is no number of records: 1 or more",
        KYE,
        "logstore: an expression is missing, as in: until state.balance < 0",
        "logstore: where to? goto OFFSET, PARTITION:OFFSET, TIME, start or end",
        "logstore: there is no record at offset 99 or behind it",
        "logstore: nothing may stand behind that command, and here is 'now'",
        "logstore: from where? restore FILE",
    ]
    assert result.stdout.splitlines()[-1].startswith("behind 2 records: shop-0, offset 1")


def test_a_fold_that_fails_stops_in_front_of_the_record(store: Path) -> None:
    script = "continue\nwhere\nback\nstate\n"
    result = run("replay shop --fold replayfold:broken --debug", store=store, stdin=script, code=1)
    assert "replayfold:broken raised RuntimeError: planted at shop-0, offset 3" in only_line(
        result.stderr
    )
    assert "behind 3 records: shop-0, offset 2" in result.stdout
    assert result.stdout.endswith("\n2\n")


def test_a_session_is_saved_and_restored(store: Path, tmp_path: Path) -> None:
    words = "replay shop --fold replayfold:account --debug"
    run(words, store=store, stdin="goto 3\nbreak offset == 5\nsave here.json\n")
    saved = json.loads((tmp_path / "here.json").read_text())
    assert saved["state"] == {"balance": 50, "orders": [1, 2]}
    result = run(words, store=store, stdin="restore here.json\nc\n")
    assert result.stdout.splitlines()[0] == at(3)
    assert "breakpoint 1: offset == 5" in result.stdout
    assert at(5) in result.stdout


def test_without_a_fold_records_are_stepped_through(store: Path) -> None:
    result = run(
        "replay shop --debug --where",
        "value.startswith('-')",
        store=store,
        stdin="n\nn\nb\np offset\n",
    )
    assert result.stdout == f"{at(1)}\n{at(2)}\n{at(1)}\n1\n"
    line = only_line(
        run(
            "replay shop --debug", store=store, stdin="state.x\np state\n", code=1
        ).stderr.splitlines(True)[-1]
    )
    assert "there is no state without a fold" in line


def test_help_names_every_command_and_what_is_short_for_it(store: Path) -> None:
    result = run("replay shop --debug", store=store, stdin="help\n")
    assert [line.split()[0] for line in result.stdout.splitlines()] == list(COMMANDS)
    assert run("replay shop --debug", store=store, stdin="h goto\n").stdout.startswith("goto WHERE")
    assert (
        "may be watch or where"
        not in run("replay shop --debug", store=store, stdin="whe\nwat\n").stdout
    )
    result = run("replay shop --debug", store=store, stdin="re\nd\nbr\ncont\nst\n", code=1)
    assert only_line(result.stderr).endswith("from where? restore FILE")


def test_standard_input_is_for_commands(store: Path) -> None:
    line = only_line(run("replay - --debug", stdin='{"value": "a"}\n', code=2).stderr)
    assert "standard input is where the debugger's commands come from" in line


# --- at a terminal ------------------------------------------------------------------------------

PROMPT = "(replay)"
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|[\r\x07\x08]")


class Terminal:
    """Somebody at a terminal, with a program in it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.shown = ""

    def wait_for(self, text: str, *, behind: int = 0, after: str = "") -> str:
        """Read until a text is shown behind what was shown before, and behind the last ``after`` in
        it; all of that, without the terminal's control sequences. What comes is cut anywhere."""
        deadline = time.monotonic() + 60
        while True:
            plain = _ESCAPES.sub("", self.shown[behind:])
            if text in (plain.rpartition(after)[2] if after else plain):
                return plain
            ready, _, _ = select.select([self._descriptor], [], [], deadline - time.monotonic())
            assert ready, f"{text!r} did not come: {self.shown[behind:]!r}"
            data = os.read(self._descriptor, 1 << 16).decode()
            if "\x1b[6n" in data:  # prompt-toolkit asks where the cursor is
                os.write(self._descriptor, b"\x1b[1;1R")
            self.shown += data

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def throw_away(self) -> None:
        """Press Ctrl-C until there is a new prompt: a program that is just about to wait for a key
        may notice it with the next one only."""
        behind = len(self.shown)
        deadline = time.monotonic() + 60
        while PROMPT not in _ESCAPES.sub("", self.shown[behind:]):
            assert time.monotonic() < deadline
            self.type("\x03")
            while select.select([self._descriptor], [], [], 0.5)[0]:
                self.shown += os.read(self._descriptor, 1 << 16).decode()

    def ask(self, line: str, answer: str) -> str:
        """Type a line, and wait for an answer and for the next prompt behind it."""
        behind = len(self.shown)
        self.type(line + "\r")
        self.wait_for(answer, behind=behind)
        self.wait_for(PROMPT, behind=behind, after=answer)
        return _ESCAPES.sub("", self.shown[behind:])


def _take_terminal() -> None:
    """Make standard input the terminal that the process is controlled by: it gets Ctrl-C."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@contextmanager
def at_terminal(
    store: Path, *words: str, **environment: str
) -> Iterator[tuple[Terminal, subprocess.Popen[bytes]]]:
    ours, theirs = pty.openpty()
    settings = {**os.environ, "LOGSTORE_DIR": str(store), "TERM": "dumb", **environment}
    settings.pop("NO_COLOR", None) if "NO_COLOR" not in environment else None
    process = subprocess.Popen(
        [*COMMAND, "replay", "shop", "--debug", *words],
        stdin=theirs, stdout=theirs, stderr=theirs, env=settings, start_new_session=True,
        preexec_fn=_take_terminal,
    )  # fmt: skip
    os.close(theirs)
    try:
        yield Terminal(ours), process
    finally:
        process.kill()
        process.wait(30)
        os.close(ours)


def without_prompt_toolkit(tmp_path: Path) -> dict[str, str]:
    """An environment in which importing prompt-toolkit fails."""
    folder = tmp_path / "hidden" / "prompt_toolkit"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError('hidden')\n")
    return {"PYTHONPATH": str(folder.parent)}


@pytest.mark.parametrize("terminal", ["plain", "prompt-toolkit, dumb", "prompt-toolkit, xterm"])
def test_a_session_at_a_terminal(terminal: str, store: Path, tmp_path: Path) -> None:
    environment = {}
    if terminal == "plain":
        environment = without_prompt_toolkit(tmp_path)
    else:
        pytest.importorskip("prompt_toolkit")
        environment = {"TERM": terminal.split()[-1]}
    with at_terminal(store, "--fold", "replayfold:account", **environment) as (there, process):
        there.wait_for(PROMPT)
        assert "'help' lists the commands" in there.shown
        assert ("pip install 'logstore[debug]'" in there.shown) is (terminal == "plain")
        there.ask("next 2", '{"balance":70,"orders":[1]}')
        assert "state.balance: 70 -> 100" in there.ask("b", at(0)[:20])
        there.ask("", "in front of the first record")  # an empty line does the last step again
        there.ask("break state.balance < 0", "breakpoint 1")
        assert "state.balance: 50 -> -30" in there.ask("continue", "=> shop-0 4")
        assert "planted" not in there.ask("nonsense", "there is no command 'nonsense'")
        there.ask("p state.orders", "[1,2,4]")
        behind = len(there.shown)
        there.type("half a line")
        there.wait_for("half a line", behind=behind)
        there.throw_away()
        there.ask("where", "behind 5 records")
        there.type("quit\r")
        assert process.wait(60) == 0


def test_the_end_of_input_ends_a_session(store: Path, tmp_path: Path) -> None:
    for environment in (without_prompt_toolkit(tmp_path), {"TERM": "xterm"}):
        with at_terminal(store, **environment) as (there, process):
            there.wait_for(PROMPT)
            there.type("\x04")
            assert process.wait(60) == 0


def test_ctrl_c_ends_a_run_and_not_the_session(store: Path, tmp_path: Path) -> None:
    (tmp_path / "replayslow.py").write_text(
        "import time\n"
        "def slow(state, record):\n"
        "    if record.offset == 4:\n"
        "        print('four', flush=True)\n"
        "        time.sleep(60)\n"
        "    return (state or 0) + 1\n"
    )
    environment = without_prompt_toolkit(tmp_path)
    with at_terminal(store, "--fold", "replayslow:slow", **environment) as (there, process):
        there.wait_for(PROMPT)
        behind = len(there.shown)
        there.type("continue\r")
        there.wait_for("four", behind=behind)
        os.kill(process.pid, 2)
        there.wait_for("interrupted", behind=behind)
        there.wait_for(at(3), behind=behind)
        there.ask("where", "behind 4 records")
        there.type("quit\r")
        assert process.wait(60) == 0


def test_colours_are_for_terminals_that_want_them(store: Path, tmp_path: Path) -> None:
    hidden = without_prompt_toolkit(tmp_path)
    for environment, coloured in (
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
    ):
        with at_terminal(store, "--fold", "replayfold:account", **hidden, **environment) as (
            there,
            _,
        ):
            there.wait_for(PROMPT)
            there.ask("next", "state:")
            behind = len(there.shown)
            there.ask("next", "+ state.orders[0]: 1")
            # Green is what a record has added; bold is no colour.
            assert ("\x1b[32m" in there.shown[behind:]) is coloured
