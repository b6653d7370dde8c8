"""Every exit code that docs/cli.md promises, by a call that ends with it."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import logstore
from tests.cli.program import run, running

ROOT = Path(__file__).resolve().parent.parent.parent
HEAD = (ROOT / "docs" / "cli" / "_head.md").read_text(encoding="utf-8")
FOLD = "def count(state, record):\n    return (state or 0) + 1\n"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("codes")
    (path / "tallies.py").write_text(FOLD)
    with logstore.open(path / "data") as store:
        for topic in ("orders", "copy", "other"):
            store.create_topic(topic)
            with store.producer(linger_ms=0) as producer:
                for number in range(4):
                    value = b"other" if topic == "other" and number == 2 else b"v%d" % number
                    producer.send(topic, value, timestamp=number)
                    producer.flush()
    return path


@pytest.fixture
def place(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the store, which a test may damage, and the current folder around it."""
    copy = tmp_path / "place"
    shutil.copytree(template, copy)
    monkeypatch.chdir(copy)
    monkeypatch.syspath_prepend(str(copy))
    return copy


def segment(place: Path) -> Path:
    return place / "data" / "topics" / "orders-0" / "00000000000000000000.log"


def flip(place: Path) -> None:
    """Damage the first batch of a log."""
    data = bytearray(segment(place).read_bytes())
    data[64] ^= 1
    segment(place).write_bytes(data)


def only_damage(place: Path) -> None:
    segment(place).write_bytes(b"no batch at all, in any of the formats")


def wrong_index(place: Path) -> None:
    segment(place).with_suffix(".timeindex").write_bytes(bytes([0] * 7 + [9, 0, 0, 0, 99]))


def nothing(place: Path) -> None:
    """Leave it as it is."""


Case = tuple[str, int, Callable[[Path], None], str]
PARTITION = "data/topics/orders-0"
CASES: list[Case] = [
    ("check", 0, nothing, "check data"),
    ("check", 1, flip, "check data"),
    ("check", 2, nothing, "check missing"),
    ("repair", 0, nothing, "repair data"),
    ("repair", 1, flip, f"repair {PARTITION}"),
    ("repair", 2, nothing, "repair data/store.json"),
    ("dump", 0, flip, f"dump {PARTITION}"),
    ("dump", 1, only_damage, f"dump {PARTITION}"),
    ("dump", 2, nothing, "dump data/store.json"),
    ("hexdump", 0, nothing, f"hexdump {PARTITION} --offset 1"),
    ("hexdump", 1, flip, f"hexdump {PARTITION}/00000000000000000000.log"),
    ("hexdump", 2, nothing, f"hexdump {PARTITION}"),
    ("index", 0, nothing, f"index {PARTITION}"),
    ("index", 1, wrong_index, f"index {PARTITION}"),
    ("index", 1, nothing, f"index {PARTITION} --offset 99"),
    ("index", 2, nothing, "index data"),
    ("stats", 0, nothing, "stats orders"),
    ("stats", 1, flip, "stats orders"),
    ("stats", 2, nothing, "stats --top many"),
    ("find", 0, nothing, "find v1 orders"),
    ("find", 1, nothing, "find nowhere orders"),
    ("find", 2, flip, "find v1 orders"),
    ("replay --bisect", 0, nothing, "replay orders --fold tallies:count --bisect state==3"),
    ("replay --bisect", 1, nothing, "replay orders --fold tallies:count --bisect state==9"),
    ("replay --bisect", 2, nothing, "replay orders --fold tallies:count --bisect state.("),
    ("replay --bisect-cmd", 0, nothing, "replay orders --bisect-cmd '! grep -q v2'"),
    ("replay --bisect-cmd", 1, nothing, "replay orders --bisect-cmd true"),
    ("replay --bisect-cmd", 2, nothing, "replay no-such-topic --bisect-cmd true"),
    ("replay --diff", 0, nothing, "replay --diff orders copy"),
    ("replay --diff", 1, nothing, "replay --diff orders other"),
    ("replay --diff", 2, nothing, "replay --diff orders no-such-topic"),
    ("replay --debug", 0, nothing, "replay orders --debug"),
    ("replay --debug", 1, nothing, "replay orders --debug "),
    ("replay --debug", 2, nothing, "replay --debug"),
]


@pytest.mark.parametrize(
    ("command", "code", "prepare", "words"), CASES, ids=[f"{c[0]}: {c[1]}" for c in CASES]
)
def test_a_code_is_what_the_document_says(
    place: Path, command: str, code: int, prepare: Callable[[Path], None], words: str
) -> None:
    prepare(place)
    # A space at the end: a script with a command that there is not.
    stdin = "no-such-command\n" if words.endswith(" ") else "next\nquit\n"
    first, *rest = shlex.split(words)
    run(first, *rest, store=place / "data", stdin=stdin, code=code)


def test_every_code_in_the_table_has_its_case() -> None:
    table = HEAD.split("<!-- exit-codes -->")[1].strip().split("\n\n")[0].splitlines()[2:]
    promised = {
        (line.split("|")[1].strip().strip("`"), code) for line in table for code in (0, 1, 2)
    }
    assert promised == {(command, code) for command, code, _, _ in CASES}


def test_the_four_codes_of_all_commands(place: Path) -> None:
    assert re.findall(r"^\| (\d+) \|", HEAD, re.MULTILINE) == ["0", "1", "2", "130"]
    store = place / "data"
    run("read orders", store=store, code=0)
    run("read no-such-topic", store=store, code=1)
    run("read orders --no-such-option", store=store, code=2)
    run("read orders", store=place / "missing", code=2)
    run("read orders --max many", store=store, code=2)


def test_an_interrupted_command_ends_with_130(place: Path) -> None:
    with running("append orders -", store=place / "data", stdin=-1) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(b"a line\n")
        process.stdin.flush()
        # Its record can be read: so it is at work.
        while b"a line" not in run("read orders", store=place / "data").stdout_bytes:
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130


def test_a_follower_that_is_interrupted_ends_with_0(place: Path) -> None:
    with running("read orders --follow", store=place / "data") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"v0\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
