"""``logstore completion``: what a shell completes, asked of real shells and by click's protocol."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

import logstore
from logstore.cli.completion import VARIABLE
from logstore.cli.main import main
from tests.cli.program import COMMAND, run

PROGRAM = shutil.which("logstore", path=os.path.dirname(sys.executable))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "data"
    with logstore.open(path) as opened:
        opened.create_topic("orders")
        opened.create_topic("payments", partitions=3)
        opened.queue("jobs")
        opened.exchange("shop", type="topic")
        with opened.consumer("orders", group="billing") as consumer:
            consumer.poll(timeout=0)
        with opened.share_consumer("orders", group="workers") as sharer:
            sharer.poll(timeout=0)
    return path


def environment(store: Path | None, **more: str) -> dict[str, str]:
    found = {**os.environ, "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"}
    found.pop("LOGSTORE_DIR", None)
    if store is not None:
        found["LOGSTORE_DIR"] = str(store)
    return {**found, **more}


def completed(monkeypatch: pytest.MonkeyPatch, words: str, store: Path | None = None) -> list[str]:
    """What a shell is told for the last of ``words``; a blank stands for files."""
    monkeypatch.setenv(VARIABLE, "bash_complete")
    monkeypatch.delenv("LOGSTORE_DIR", raising=False)
    if store is not None:
        monkeypatch.setenv("LOGSTORE_DIR", str(store))
    *before, last = words.split(" ")[1:]
    items = ShellComplete(main, {}, "logstore", VARIABLE).get_completions(before, last)
    return sorted("" if item.type == "file" else item.value for item in items)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("logstore hex", ["hexdump"]),
        ("logstore topic de", ["delete", "describe"]),
        ("logstore read o", ["orders"]),
        ("logstore read ", ["orders", "payments"]),
        ("logstore topic describe pa", ["payments"]),
        ("logstore group describe ", ["billing"]),
        ("logstore share-group describe ", ["workers"]),
        ("logstore read orders --share-group ", ["workers"]),
        ("logstore queue purge ", ["jobs"]),
        ("logstore queue bind jobs sh", ["shop"]),
        ("logstore exchange delete sh", ["shop"]),
        ("logstore consume ", ["jobs"]),
        ("logstore replay pay", ["", "payments"]),
        ("logstore replay queue:", ["", "queue:jobs"]),
        ("logstore read payments --partition ", ["0", "1", "2"]),
        ("logstore read orders --group ", ["billing"]),
        ("logstore topic create new --config segment_b", ["segment_bytes="]),
        ("logstore topic create o", []),
        ("logstore completion f", ["fish"]),
        ("logstore read orders --fol", ["--follow"]),
    ],
)
def test_words_are_completed(
    monkeypatch: pytest.MonkeyPatch, store: Path, words: str, expected: list[str]
) -> None:
    assert completed(monkeypatch, words, store) == expected


def test_a_store_that_is_named_on_the_line_counts(
    monkeypatch: pytest.MonkeyPatch, store: Path
) -> None:
    assert completed(monkeypatch, f"logstore --store {store} read o") == ["orders"]
    assert completed(monkeypatch, f"logstore read --store {store} o") == ["orders"]


def test_without_a_store_nothing_is_completed_and_nothing_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert completed(monkeypatch, "logstore read ", tmp_path / "missing") == []
    assert completed(monkeypatch, "logstore read ") == []
    (tmp_path / "store.json").write_text("no JSON")
    assert completed(monkeypatch, "logstore read ", tmp_path) == []
    assert os.listdir(tmp_path) == ["store.json"]


def in_bash(script: str, store: Path) -> list[str]:
    command = ["bash", "--norc", "-c", script]
    done = subprocess.run(
        command, env=environment(store), capture_output=True, check=True, timeout=60
    )
    assert done.stderr == b""
    return done.stdout.decode().split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.skipif(PROGRAM is None, reason="the program is not installed beside the interpreter")
def test_bash_completes_with_the_script_that_is_printed(store: Path) -> None:
    script = (
        'eval "$(logstore completion bash)"; COMP_WORDS=(logstore read pay); COMP_CWORD=2; '
        '_logstore_completion logstore; echo "${COMPREPLY[@]}"; complete -p logstore'
    )
    found = in_bash(script, store)
    assert found[0] == "payments"
    assert found[-1] == "logstore"


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_take_the_script(shell: str) -> None:
    script = run(f"completion {shell}").stdout
    assert "_LOGSTORE_COMPLETE" in script
    if shutil.which(shell) is None:
        return  # what it does with the script is asked by its protocol below
    subprocess.run([shell, "-n"], input=script.encode(), check=True, timeout=60)


def test_other_shells_are_answered_in_their_protocols(store: Path) -> None:
    asked = {
        "zsh": {"COMP_WORDS": "logstore read pay", "COMP_CWORD": "2"},
        "fish": {"COMP_WORDS": "logstore read", "COMP_CWORD": "pay"},
    }
    answers = {}
    for shell, words in asked.items():
        variables = {**words, "_LOGSTORE_COMPLETE": f"{shell}_complete"}
        answers[shell] = subprocess.run(
            COMMAND,
            env=environment(store, **variables),
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout.split()
    assert b"payments" in answers["zsh"]
    assert any(b"payments" in word for word in answers["fish"])


def test_a_shell_that_is_not_known_is_wrong_use() -> None:
    assert "tcsh" in run("completion tcsh", code=2).stderr


def test_the_help_says_where_it_goes() -> None:
    shown = run("completion --help").stdout
    assert 'eval "$(logstore completion bash)"' in shown
