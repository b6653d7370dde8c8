"""Commands of which exit code 1 is an answer, as it is grep's and diff's."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import click
import lmdb

from logstore.cli.output import WRONG_USE, complain
from logstore.errors import LogstoreError

__all__ = ["or_trouble"]


def or_trouble(ctx: click.Context, run: Callable[..., object], *arguments: Any) -> None:
    """Call ``run`` with the context and the arguments; whatever goes wrong ends the command with 2.
    A closed pipe passes untouched."""
    try:
        run(ctx, *arguments)
    except BrokenPipeError:
        raise
    except (LogstoreError, lmdb.Error) as error:
        complain(str(error))
        ctx.exit(WRONG_USE)
    except OSError as error:
        text = error.strerror or str(error)
        complain(f"{os.fsdecode(error.filename)}: {text}" if error.filename else text)
        ctx.exit(WRONG_USE)
