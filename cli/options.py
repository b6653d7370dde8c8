"""What the commands that work on a store have in common: where it is, and asking before what
cannot be undone."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from logstore.cli.output import FAILED, complain

__all__ = [
    "ENVIRONMENT",
    "SETTINGS",
    "Settings",
    "config_values",
    "confirm_deletion",
    "store_option",
    "yes_option",
]

SETTINGS = "logstore.settings"
"""The key of the settings in a click context's ``meta``."""

ENVIRONMENT = "LOGSTORE_DIR"
"""Names the store, where no option does."""

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Settings:
    """What was given in front of the command."""

    store: str | None = None


def store_option(command: _Command) -> _Command:
    """Give a command the argument ``store``: its own ``--store``, the one in front of the command,
    or the environment's."""
    return click.option(
        "--store",
        metavar="DIR",
        type=click.Path(),
        callback=_find_store,
        help=f"The store's directory; without it, the environment variable {ENVIRONMENT}.",
    )(command)


def _find_store(ctx: click.Context, _: click.Parameter, value: str | None) -> str:
    settings = ctx.meta.get(SETTINGS, Settings())
    store = value or settings.store or os.environ.get(ENVIRONMENT)
    if not store:
        raise click.UsageError(f"which store? Give --store DIR, or set {ENVIRONMENT}", ctx)
    return store


def config_values(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    """The values of ``--config key=value`` by their keys."""
    config = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{value!r} is not of the form key=value", ctx, param)
        config[key] = text
    return config


yes_option = click.option("--yes", is_flag=True, help="Do not ask first.")


def confirm_deletion(ctx: click.Context, what: str, *, yes: bool) -> None:
    """Ask on a terminal whether to delete ``what``, unless ``yes`` says so; whoever says no ends
    the command. A script means what it says: nobody is asked there."""
    if yes or not sys.stdin.isatty():
        return
    if not click.confirm(f"delete {what}?", err=True):
        complain("nothing was deleted")
        ctx.exit(FAILED)
