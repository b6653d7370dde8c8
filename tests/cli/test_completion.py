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
from logstore.cli.completion_shells import SHELLS
from logstore.cli.main import main
from tests.cli.program import COMMAND, run
from tests.cli.shells import TypingShell, offered_by_fish

PATH = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "data"
    with logstore.open(path) as opened:
        opened.create_topic("orders")
        opened.create_topic("payments", partitions=3)
        opened.queue("jobs")
        opened.queue("my work*")
        opened.exchange("shop", type="topic")
        with opened.consumer("orders", group="billing") as consumer:
            consumer.poll(timeout=0)
        with opened.share_consumer("orders", group="workers") as sharer:
            sharer.poll(timeout=0)
    return path


def environment(store: Path | None, **more: str) -> dict[str, str]:
    found = {**os.environ, "PATH": PATH}
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
        ("logstore queue purge ", ["jobs", "my work*"]),
        ("logstore queue redrive jobs --to-exchange sh", ["shop"]),
        ("logstore queue bind jobs sh", ["shop"]),
        ("logstore exchange delete sh", ["shop"]),
        ("logstore consume j", ["jobs"]),
        ("logstore replay pay", ["", "payments"]),
        ("logstore replay queue:", ["", "queue:jobs", "queue:my work*"]),
        ("logstore replay orders --to exchange:s", ["exchange:shop"]),
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


def needs(shell: str) -> pytest.MarkDecorator:
    missing = [name for name in (shell, "logstore") if shutil.which(name, path=PATH) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


TYPED = [
    ("logstore read pay", "logstore read payments "),
    ("logstore read payments --group=bil", "logstore read payments --group=billing "),
    ("logstore replay queue:jo", "logstore replay queue:jobs "),
    ('logstore replay "queue:jo', 'logstore replay "queue:jobs" '),
    ("logstore queue purge my", r"logstore queue purge my\ work\* "),
    ("logstore topic create new --config segment_b", None),
    ("logstore find pattern file", "logstore find pattern file.log "),
    ("logstore read --store=fol", "logstore read --store=folder/"),
    ("echo 1 | logstore append ord", "echo 1 | logstore append orders "),
    ("logstore read nothing-like-it", "logstore read nothing-like-it"),
]
"""Lines, and what they are after Tab; None: more belongs to the last word, so no space follows."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "file.log").touch()
    (tmp_path / "folder").mkdir()
    return tmp_path


@pytest.mark.parametrize("shell", [pytest.param(one, marks=needs(one)) for one in ("bash", "zsh")])
def test_a_shell_completes_what_is_typed(shell: str, store: Path, folder: Path) -> None:
    expected = [line or "logstore topic create new --config segment_bytes=" for _, line in TYPED]
    with TypingShell(shell, environment(store), str(folder)) as typing:
        assert [typing.completed(line) for line, _ in TYPED] == expected


@needs("zsh")
def test_zsh_offers_names_and_files_for_an_empty_word(store: Path, folder: Path) -> None:
    with TypingShell("zsh", environment(store), str(folder)) as typing:
        typing.completed("logstore find pattern ")
        for offer in ("orders", "queue:jobs", "file.log"):
            assert offer in typing.shown


OFFERED = {
    "logstore hexd": ["hexdump"],
    "logstore read payments --group=bil": ["--group=billing"],
    "logstore replay queue:": ["queue:jobs", "queue:my work*"],
    "logstore topic create new --config segment_b": ["segment_bytes="],
    "logstore find pattern ": [
        *("file.log", "folder/", "orders", "payments", "queue:jobs", "queue:my work*"),
    ],
    "logstore read --store=fol": ["--store=folder/"],
    "echo 1 | logstore append ord": ["orders"],
}


@needs("fish")
def test_fish_offers_names_and_files(store: Path, folder: Path) -> None:
    found = offered_by_fish([*OFFERED], environment(store), str(folder))
    assert dict(zip(OFFERED, map(sorted, found), strict=False)) == OFFERED


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_a_shell_takes_the_script(shell: str) -> None:
    script = run(f"completion {shell}").stdout
    assert "_LOGSTORE_COMPLETE" in script
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed: it cannot read the script")
    subprocess.run([shell, "-n"], input=script.encode(), check=True, timeout=60)


@pytest.mark.parametrize(
    ("shell", "line", "answer"),
    [
        ("bash", "logstore read pay", "ppayments"),
        ("bash", "logstore replay queue:j", "f\tqueue:j\npjobs"),
        ("bash", "logstore replay 'queue:j", "f\tqueue:j\npqueue:jobs"),
        ("bash", "logstore read --group=b", "pbilling"),
        ("zsh", "logstore replay queue:j", "f\tqueue:j\npqueue:jobs"),
        ("zsh", "logstore read --group=b", "p--group=billing"),
        ("zsh", "logstore check --store=da", "f--store=\tda"),
        ("zsh", "logstore find pattern ", "f\t\nporders\nppayments\npqueue:jobs\npqueue:my work*"),
        ("fish", "logstore queue purge my\\ w", "pmy work*"),
    ],
)
def test_a_shell_is_answered_in_its_protocol(
    monkeypatch: pytest.MonkeyPatch, store: Path, shell: str, line: str, answer: str
) -> None:
    monkeypatch.setenv(VARIABLE, f"{shell}_complete")
    monkeypatch.setenv("LOGSTORE_DIR", str(store))
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_WORDBREAKS", " \t\n\"'@><=;|&(:")
    assert SHELLS[shell](main, {}, "logstore", VARIABLE).complete() == answer


def test_a_value_to_which_more_belongs_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMP_WORDS", "logstore topic create new --config cleanup_p")
    monkeypatch.setenv(VARIABLE, "zsh_complete")
    answer = SHELLS["zsh"](main, {}, "logstore", VARIABLE).complete()
    assert answer.startswith("ocleanup_policy=\t")


def test_the_program_answers_a_shell(store: Path) -> None:
    asked = {"COMP_WORDS": "logstore read pay", VARIABLE: "fish_complete"}
    done = subprocess.run(
        COMMAND, env=environment(store, **asked), capture_output=True, check=True, timeout=60
    )
    assert (done.stdout, done.stderr) == (b"ppayments\n", b"")


def test_a_shell_that_is_not_known_is_wrong_use() -> None:
    assert "tcsh" in run("completion tcsh", code=2).stderr


def test_the_help_says_where_it_goes() -> None:
    shown = run("completion --help").stdout
    assert 'eval "$(logstore completion bash)"' in shown
