"""The program's root: its commands, and the one place where errors become a line and a code."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import click
import lmdb

import logstore
from logstore.cli.options import SETTINGS, Settings
from logstore.cli.output import FAILED, WRONG_USE, complain, silence
from logstore.cli.start import INTERRUPTED, importing
from logstore.errors import InvalidInputError, LogstoreError, StoreNotFoundError

__all__ = ["main"]


_MODULES = {
    "append": "append",
    "backup": "backup",
    "check": "check",
    "compact": "maintain",
    "completion": "completion",
    "consume": "consume",
    "delete-records": "shorten",
    "dump": "dump",
    "exchange": "exchange",
    "find": "find",
    "group": "group",
    "index": "index",
    "hexdump": "hexdump",
    "queue": "queue_redelivery",
    "read": "read",
    "repair": "repair",
    "replay": "replay",
    "restore": "backup",
    "retain": "maintain",
    "share-group": "share_group",
    "simulate": "simulate",
    "stats": "stats",
    "topic": "topic",
    "truncate": "shorten",
}
"""The commands, and which module of this package each one is in; the last one, for a family that
is spread over several."""


_COMPLETION = "_LOGSTORE_COMPLETE"
"""Set by a shell that wants to know how to go on (``logstore.cli.completion``)."""


class Program(click.Group):
    """A group whose errors are one line on standard error, and never a traceback.

    A command is imported when it is called: most need only a part of what all of them need.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands."""
        return sorted(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, or None."""
        if cmd_name not in _MODULES:
            return None
        with importing():
            module = importlib.import_module(f"logstore.cli.{_MODULES[cmd_name]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        if _COMPLETION in os.environ:
            from logstore.cli.completion import teach

            teach(command, cmd_name)
        return command

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the program, and exit."""
        prog_name = prog_name or "logstore"
        complete_var = complete_var or _COMPLETION
        if complete_var in os.environ:
            import logstore.cli.completion_shells  # noqa: F401  it tells click of the shells
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        try:
            code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
            finish()
        except click.UsageError as error:
            hint = f" (see '{error.ctx.command_path} --help')" if error.ctx is not None else ""
            complain(error.format_message() + hint)
            code = WRONG_USE
        except click.ClickException as error:
            complain(error.format_message())
            code = error.exit_code
        except (click.Abort, KeyboardInterrupt):
            complain("interrupted")
            code = INTERRUPTED
        except OSError as error:
            code = code_of(error)
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what it raises on purpose ends here."""
        try:
            result = super().invoke(ctx)
            finish()
        except BrokenPipeError:
            silence()
            ctx.exit(0)
        except KeyboardInterrupt:
            silence()  # whoever reads may have stopped, and would hold up the end
            complain("interrupted")
            ctx.exit(INTERRUPTED)
        except (LogstoreError, OSError, lmdb.Error) as error:
            ctx.exit(code_of(error))
        return result


def finish() -> None:
    """Hand on what was printed while an error can still be told, and not as Python shuts down.

    A code that is known stands, even if nobody reads the last lines any more.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        silence()


def code_of(error: Exception) -> int:
    """Complain, and say with which code to exit."""
    if isinstance(error, BrokenPipeError):
        silence()
        return 0
    if isinstance(error, OSError):
        # Standard output may be what is full, and it would fail once more at the end.
        silence()
        text = error.strerror or str(error)
        complain(f"{os.fsdecode(error.filename)}: {text}" if error.filename else text)
        return FAILED
    complain(str(error))
    return WRONG_USE if isinstance(error, (InvalidInputError, StoreNotFoundError)) else FAILED


@click.group(
    cls=Program,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(logstore.__version__, prog_name="logstore")
@click.option(
    "--store",
    metavar="DIR",
    type=click.Path(),
    help="The store's directory; may also stand behind the command, or in LOGSTORE_DIR.",
)
@click.pass_context
def main(ctx: click.Context, store: str | None) -> None:
    """Keep event logs in Apache Kafka's own file format, without a server.

    `append` and `read` work on the topics of a store. `dump` and `check` look into files: of a
    store, or copied from a Kafka broker. `replay` runs either again.
    """
    ctx.meta[SETTINGS] = Settings(store)
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(WRONG_USE)
