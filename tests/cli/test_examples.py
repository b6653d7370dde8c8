"""Every command's help has an example, and every example in a help text works."""

from __future__ import annotations

import inspect
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from logstore.cli.main import main

from .world import make_world

MAY_EXIT_WITH_1 = ("find",)
"""Commands whose exit code 1 is an answer: nothing was found."""


def commands(
    command: click.Command = main, words: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something, with the words that call it."""
    if not isinstance(command, click.Group):
        yield words, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        assert child is not None
        yield from commands(child, (*words, name))


def examples_of(command: click.Command) -> list[str]:
    """The examples in a help text: the lines behind ``Example:``, up to an empty one."""
    lines = inspect.cleandoc((command.help or "").replace("\b", "")).splitlines()
    found, inside = [], False
    for line in lines:
        text = line.strip()
        if text in ("Example:", "Examples:"):
            inside = True
        elif text.startswith("Example: "):
            found.append(text.removeprefix("Example: "))
        elif not text:
            inside = False
        elif inside:
            found.append(text)
    return [_bare(text) for text in found]


def _bare(text: str) -> str:
    """The call of the program in a line for a shell, without what stands around it."""
    if text.startswith('eval "$('):
        return text.removeprefix('eval "$(').partition(")")[0]
    return text.partition("  ")[0].partition(" | ")[0].strip()


COMMANDS = list(commands())
EXAMPLES = [(words, text) for words, command in COMMANDS for text in examples_of(command)]


@pytest.mark.parametrize(
    ("words", "command"), COMMANDS, ids=[" ".join(words) for words, _ in COMMANDS]
)
def test_the_help_of_every_command_has_an_example(
    words: tuple[str, ...], command: click.Command
) -> None:
    examples = examples_of(command)
    assert examples
    for text in examples:
        assert shlex.split(text)[: len(words) + 1] == ["logstore", *words]
        assert len(text) < 100


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("world")
    make_world(path)
    return path


@pytest.mark.parametrize(("words", "text"), EXAMPLES, ids=[text for _, text in EXAMPLES])
def test_every_example_works(
    words: tuple[str, ...],
    text: str,
    original: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = tmp_path / "world"
    shutil.copytree(original, world)
    monkeypatch.chdir(world)
    monkeypatch.setenv("LOGSTORE_DIR", "data")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    _, *arguments = shlex.split(text)
    stdin = b""
    if "<" in arguments:
        place = arguments.index("<")
        stdin = Path(arguments[place + 1]).read_bytes()
        del arguments[place : place + 2]
    result = CliRunner().invoke(main, arguments, input=stdin)
    sys.modules.pop("shop", None)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    allowed = (0, 1) if words[0] in MAY_EXIT_WITH_1 else (0,)
    assert result.exit_code in allowed, result.stderr
    assert "Traceback" not in result.stderr
