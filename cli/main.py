"""The program's root: its commands, and the one place where errors become a line and a code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import click
import lmdb

import logstore
from logstore.cli.append import append
from logstore.cli.backup import backup, restore
from logstore.cli.check import check
from logstore.cli.consume import consume
from logstore.cli.dump import dump
from logstore.cli.exchange import exchange
from logstore.cli.group import group
from logstore.cli.maintain import compact, retain
from logstore.cli.options import SETTINGS, Settings
from logstore.cli.output import FAILED, INTERRUPTED, WRONG_USE, complain, silence
from logstore.cli.queue import queue
from logstore.cli.read import read
from logstore.cli.repair import repair
from logstore.cli.shorten import delete_records, truncate
from logstore.cli.topic import topic
from logstore.errors import InvalidInputError, LogstoreError, StoreNotFoundError

__all__ = ["main"]


class Program(click.Group):
    """A group whose errors are one line on standard error, and never a traceback."""

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
    store, or copied from a Kafka broker.
    """
    ctx.meta[SETTINGS] = Settings(store)
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(WRONG_USE)


_MAINTENANCE = (repair, backup, restore, retain, compact, delete_records, truncate)

_FAMILIES = (append, read, dump, check, topic, group, exchange, queue, consume)

for _command in (*_FAMILIES, *_MAINTENANCE):
    main.add_command(_command)
