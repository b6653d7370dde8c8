"""Writes docs/cli.md: from the commands themselves, and the prose in docs/cli/.

    make docs

For each command: its usage, its options, and the examples in its help. ``docs/cli/NAME.md`` says
the rest; it may begin with a usage of its own (where options exclude each other), and rows of its
option tables stand in place of the options' help. An option that it does not name gets a row from
the program's help; one that the program does not have is an error. ``tests/test_architecture.py``
fails where docs/cli.md is not what this writes.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click

from logstore.cli.main import main

DOCS = Path(__file__).resolve().parent
FRAGMENTS = DOCS / "cli"
RESULT = DOCS / "cli.md"

# The commands in the order in which they are told; others follow by name.
ORDER = (
    *("topic", "topic create", "topic list", "topic describe", "topic alter", "topic delete"),
    *("group", "group list", "group describe", "group reset-offsets", "group delete"),
    *("share-group", "share-group list", "share-group describe", "share-group alter"),
    *("share-group reset-offsets", "share-group delete"),
    *("exchange", "exchange declare", "exchange list", "exchange delete"),
    *("queue", "queue declare", "queue bind", "queue unbind", "queue publish", "queue list"),
    *("queue describe", "queue get", "queue peek", "queue purge", "queue seek", "queue redrive"),
    *("queue ledger", "queue delete", "consume", "append", "read", "replay", "find", "stats"),
    *("dump", "hexdump", "index", "check", "repair", "backup", "restore", "retain", "compact"),
    *("delete-records", "truncate", "simulate", "completion"),
)
WIDTH = 100
_MANY_OPTIONS = 12
_COMMON = {"store", "help"}
"""Options that all commands have: told once."""
_OPTION = re.compile(r"(?<![\w-])--?[a-zA-Z][\w-]*")


class DocumentError(Exception):
    """The prose does not suit the program."""


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Every command below ``group`` with its words: families in front of what is in them."""
    context = click.Context(group)
    names = group.list_commands(context)
    for name in sorted(names, key=lambda name: (_place(" ".join((*path, name))), name)):
        command = group.get_command(context, name)
        assert command is not None
        words = (*path, name)
        yield " ".join(words), command
        if isinstance(command, click.Group):
            yield from commands(command, words)


def _place(words: str) -> int:
    return ORDER.index(words) if words in ORDER else len(ORDER)


def options_of(command: click.Command) -> list[click.Option]:
    """The options that a section has to tell."""
    return [
        param
        for param in command.params
        if isinstance(param, click.Option) and not param.hidden and param.name not in _COMMON
    ]


def document() -> str:
    """The whole of docs/cli.md."""
    everything = list(commands(main))
    known = {f"{words.replace(' ', '-')}.md" for words, _ in everything} | {"_head.md", "_json.md"}
    unknown = sorted(path.name for path in FRAGMENTS.glob("*.md") if path.name not in known)
    if unknown:
        raise DocumentError(f"docs/cli/{unknown[0]}: there is no such command")
    title, _, common = fragment("_head").partition("\n## ")
    parts = [
        "<!-- Made by `make docs` from the commands and from docs/cli/. Do not edit it here. -->",
        title.strip(),
        contents(everything),
        f"## {common.strip()}",
        *(section(words, command) for words, command in everything),
        fragment("_json").strip(),
    ]
    return "\n\n".join(parts) + "\n"


def fragment(name: str) -> str:
    """The prose of that name; empty where there is none."""
    path = FRAGMENTS / f"{name}.md"
    return path.read_text(encoding="utf-8") if path.exists() else ""


def contents(everything: list[tuple[str, click.Command]]) -> str:
    """The table of contents."""
    lines = ["- [Common to all commands](#common-to-all-commands): the store, exit codes, pipes"]
    for words, command in everything:
        link = f"[`{'logstore ' * (' ' not in words)}{words.split()[-1]}`](#{_anchor(words)})"
        if " " in words:
            lines[-1] += f"{',' if lines[-1].endswith(')') else ':'} {link}"
        else:
            lines.append(f"- {link}: {_lower(command.get_short_help_str(WIDTH))}")
    lines.append("- [JSON](#json): the objects that `--json` prints")
    return "\n".join(_wrapped(line, indent=2) for line in lines)


def _wrapped(line: str, *, indent: int) -> str:
    """A line broken at its spaces, and not inside of links and of what \\0 glues together."""
    glued = re.sub(r"\[[^\]]*\]", lambda link: link[0].replace(" ", "\0"), line)
    lines = textwrap.wrap(
        glued,
        WIDTH,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines).replace("\0", " ")


def _lower(text: str) -> str:
    text = text.removesuffix(".")
    return text[:1].lower() + text[1:]


def _anchor(words: str) -> str:
    return f"logstore-{words.replace(' ', '-')}"


def section(words: str, command: click.Command) -> str:
    """The section of one command."""
    prose = fragment(words.replace(" ", "-")).strip()
    parts = [f"{'###' if ' ' in words else '##'} logstore {words}"]
    if isinstance(command, click.Group):
        return "\n\n".join([*parts, prose or _description(command)])
    own_usage = re.match(r"```\n(logstore .*?)```\n*", prose, re.DOTALL)
    if own_usage:
        _check_names(words, command, own_usage[1])
        prose = prose[own_usage.end() :]
        parts.append(own_usage[0].strip())
    else:
        parts.append(f"```\n{usage(words, command)}\n```")
    parts.append(_with_options(words, command, prose or _description(command)))
    missing = [line for line in examples(command) if line not in prose]
    if missing:
        parts.append("```\n" + "\n".join(missing) + "\n```")
    return "\n\n".join(parts)


def usage(words: str, command: click.Command) -> str:
    """How the command is called, from its parameters."""
    context = click.Context(command)
    said = [f"logstore {words}"]
    said += [
        param.make_metavar(context) for param in command.params if isinstance(param, click.Argument)
    ]
    options = options_of(command)
    if len(options) > _MANY_OPTIONS:
        said.append("[OPTION]...")
    else:
        said += [_option_usage(option, context) for option in options]
    glued = " ".join(part.replace(" ", "\0") for part in said)
    return _wrapped(glued, indent=len(said[0]) + 1)


def _option_usage(option: click.Option, context: click.Context) -> str:
    text = _long_name(option)
    if not option.is_flag:
        text += f" {_metavar(option, context)}"
    if not option.required:
        text = f"[{text}]"
    return text + ("..." if option.multiple else "")


def _long_name(option: click.Option) -> str:
    return max(option.opts, key=len)


def _metavar(option: click.Option, context: click.Context) -> str:
    if isinstance(option.type, click.Choice):
        return "|".join(map(str, option.type.choices))
    if option.metavar:
        return option.metavar
    kind = option.make_metavar(context)
    return "N" if kind.startswith(("INTEGER", "FLOAT")) else kind


# The help's parts ---------------------------------------------------------------------------


def _paragraphs(command: click.Command) -> list[str]:
    text = textwrap.dedent("    " + (command.help or ""))
    return [part for part in re.split(r"\n\s*\n", text.replace("\b", "")) if part.strip()]


def _is_examples(paragraph: str) -> bool:
    return re.match(r"\s*Examples?:", paragraph) is not None


def _description(command: click.Command) -> str:
    """The help without its examples."""
    return "\n\n".join(
        textwrap.fill(" ".join(part.split()), WIDTH)
        for part in _paragraphs(command)
        if not _is_examples(part)
    )


def examples(command: click.Command) -> list[str]:
    """The lines of the help that show how to call the command."""
    found = []
    for part in _paragraphs(command):
        if _is_examples(part):
            lines = re.sub(r"^\s*Examples?:", "", part).splitlines()
            found += [line.strip() for line in lines if line.strip()]
    return found


# Tables of options --------------------------------------------------------------------------


def _check_names(words: str, command: click.Command, text: str) -> set[str]:
    """The options that a text names; all have to be the command's."""
    known = {name for option in options_of(command) for name in option.opts}
    named = set(_OPTION.findall(text))
    wrong = sorted(name for name in named - known if name.startswith("--") and name != "--store")
    if wrong:
        raise DocumentError(f"docs/cli/: logstore {words} has no option {wrong[0]}")
    return named


def _with_options(words: str, command: click.Command, prose: str) -> str:
    """The prose with a row for every option of the command."""
    lines = prose.splitlines()
    named: set[str] = set()
    end = None
    in_table = False
    for number, line in enumerate(lines):
        if re.match(r"\| Option\b", line):
            in_table = True
        elif in_table and line.startswith("|"):
            if not line.startswith("|---"):
                named |= _check_names(words, command, line.split(" | ")[0])
            end = number + 1
        else:
            in_table = False
    rows = [
        _row(option)
        for option in options_of(command)
        if not named & set(option.opts) and not (option.name == "as_json" and _told(words, prose))
    ]
    if not rows:
        return prose
    if end is None:
        end = next((n for n, line in enumerate(lines) if line.startswith(("```", "|"))), len(lines))
        # In front of a block that the sentence above it leads up to.
        while end and end < len(lines) and lines[end - 1].strip():
            end -= 1
        while end and not lines[end - 1].strip():
            end -= 1
        rows = ["", "| Option | Meaning |", "|---|---|", *rows]
    return "\n".join([*lines[:end], *rows, *lines[end:]]).strip()


def _told(words: str, prose: str) -> bool:
    """Whether ``--json`` is spoken of already, here or for the whole family."""
    return "--json" in prose or (" " in words and "--json" in fragment(words.split()[0]))


def _row(option: click.Option) -> str:
    names = [f"`{name}`" for name in option.opts if name != _long_name(option)]
    value = "" if option.is_flag else " " + _metavar(option, click.Context(click.Command("x")))
    first = f"`{_long_name(option)}{value}`".replace("|", "\\|")
    return f"| {', '.join([first, *names])} | {_meaning(option)} |"


def _meaning(option: click.Option) -> str:
    text = " ".join((option.help or "").split())
    if option.show_default and option.default not in (None, False):
        text += f" Default: {option.default}."
    return text.replace("|", "\\|")


if __name__ == "__main__":
    try:
        made = document()
    except DocumentError as error:
        sys.exit(str(error))
    RESULT.write_text(made, encoding="utf-8")
    print(f"wrote {RESULT.name}: {len(made.splitlines())} lines")
