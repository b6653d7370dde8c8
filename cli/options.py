"""What the commands that work on a store have in common: where it is, and opening it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

__all__ = ["SETTINGS", "Settings", "store_option"]

SETTINGS = "logstore.settings"
"""The key of the settings in a click context's ``meta``."""

_ENVIRONMENT = "LOGSTORE_DIR"

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
        help=f"The store's directory; without it, the environment variable {_ENVIRONMENT}.",
    )(command)


def _find_store(ctx: click.Context, _: click.Parameter, value: str | None) -> str:
    settings = ctx.meta.get(SETTINGS, Settings())
    store = value or settings.store or os.environ.get(_ENVIRONMENT)
    if not store:
        raise click.UsageError(f"which store? Give --store DIR, or set {_ENVIRONMENT}", ctx)
    return store
