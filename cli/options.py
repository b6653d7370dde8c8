"""What the commands that work on a store have in common: where it is, and asking before what
cannot be undone."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

import logstore
from logstore.cli.output import FAILED, WRONG_USE, complain

if TYPE_CHECKING:
    from logstore.store import Store

__all__ = [
    "ENVIRONMENT",
    "SETTINGS",
    "Settings",
    "any_store_option",
    "config_values",
    "confirm_deletion",
    "help_alone",
    "json_option",
    "open_store",
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


def _find_store(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str:
    store = _named_store(ctx, parameter, value)
    if store is None:
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


def _named_store(ctx: click.Context, _: click.Parameter, value: str | None) -> str | None:
    settings = ctx.meta.get(SETTINGS, Settings())
    return value or settings.store or os.environ.get(ENVIRONMENT) or None


any_store_option = click.option(
    "--store",
    metavar="DIR",
    type=click.Path(),
    callback=_named_store,
    help=f"The store of topics; without it, the environment variable {ENVIRONMENT}.",
)
"""For commands that need no store where they are given directories of segments."""


def open_store(store: str, *, read_only: bool = False) -> Store:
    """The store, which has to be there, without maintenance of its own that would get in the
    way."""
    return logstore.open(store, create=False, read_only=read_only, maintenance_interval=None)


def help_alone(ctx: click.Context) -> None:
    """The help of a family of commands, for whoever names none of them: that is wrong use."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(WRONG_USE)


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON objects, one a line."
)
yes_option = click.option("--yes", is_flag=True, help="Do not ask first.")


def confirm_deletion(ctx: click.Context, what: str, *, yes: bool) -> None:
    """Ask on a terminal whether to delete ``what``, unless ``yes`` says so; whoever says no ends
    the command. A script means what it says: nobody is asked there."""
    if yes or not sys.stdin.isatty():
        return
    if not click.confirm(f"delete {what}?", err=True):
        complain("nothing was deleted")
        ctx.exit(FAILED)
