"""``logstore replay --debug``: who types the debugger's commands, and where.

At a terminal prompt-toolkit reads the lines (the extra ``logstore[debug]``), with history,
completion and editing; where it is not installed, Python's own ``input`` does. What comes through a
pipe is a script: its lines are done one by one.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

import click

from logstore.cli.debugger import COMMANDS, Debugger
from logstore.cli.output import FAILED, Lines
from logstore.cli.replay_options import Options
from logstore.replay.session import Session

__all__ = ["run_debugger"]

_PROMPT = "(replay) "
_WORDS = (
    *("state", "record", "key", "value", "json", "headers"),
    *("offset", "timestamp", "partition", "topic"),
)


def run_debugger(ctx: click.Context, text: str, options: Options) -> None:
    """Step through a source by the commands of whoever is at standard input; exits with 1 where a
    command of a script has failed."""
    at_terminal = sys.stdin is not None and sys.stdin.isatty()
    if text in ("-", "file:-"):
        raise click.UsageError("standard input is where the debugger's commands come from", ctx)
    test, fold = options.test(), options.fold()
    now = options.now_ms()
    with options.open_source(text, again=True) as source:
        session = Session(
            source,
            fold,
            test=test,
            fold_name=options.folds[0] if options.folds else None,
            now_ms=now,
        )
        lines = Lines()
        debugger = Debugger(session, lines.line, now_ms=now)
        if at_terminal:
            lines.line(f"{source.name}: 'help' lists the commands, 'quit' ends")
            for line in _typed():
                debugger.run(line, repeat=True)
                _flush()
                if debugger.is_done:
                    return
            return
        for line in sys.stdin or ():
            debugger.run(line)
            if debugger.is_done:
                break
        if debugger.has_failed:
            ctx.exit(FAILED)


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _typed() -> Iterator[str]:
    """Lines that somebody types, until they have had enough (Ctrl-D)."""
    read = _reader()
    while True:
        try:
            line = read()
        except KeyboardInterrupt:  # Ctrl-C throws a line away
            click.echo()
            continue
        except EOFError:
            return
        yield line


def _reader() -> Callable[[], str]:
    if sys.stdout is not None and sys.stdout.isatty():
        try:
            return _prompt_toolkit()
        except ImportError:
            click.echo("(completion of words needs prompt-toolkit: pip install 'logstore[debug]')")
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - input() takes its editing and history from it
    return lambda: input(_PROMPT)


def _prompt_toolkit() -> Callable[[], str]:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter

    completer = WordCompleter([*COMMANDS, *_WORDS], ignore_case=False)
    session: PromptSession[str] = PromptSession(completer=completer, complete_while_typing=False)
    return lambda: session.prompt(_PROMPT)
