"""Options of the form KEY=VALUE, as the commands of exchanges and queues take them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from logstore.errors import InvalidInputError
from logstore.queues.field_table import from_json
from logstore.queues.properties import Properties

__all__ = ["arg_option", "header_option", "property_option"]

_Command = TypeVar("_Command", bound=Callable[..., Any])

_FLAGS = ("durable", "auto_delete", "internal", "exclusive")
_TRUTHS = {"true": True, "false": False}
_NUMBERS = ("delivery_mode", "priority", "expiration", "timestamp", "delay_ms", "deliver_at_ms")


def _pairs(
    ctx: click.Context, param: click.Parameter, values: Sequence[str]
) -> list[tuple[str, str]]:
    pairs = []
    for value in values:
        key, equals, text = value.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{value!r} is not of the form key=value", ctx, param)
        pairs.append((key, text))
    return pairs


def _arguments(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, text in _pairs(ctx, param, values):
        name = key.removeprefix("x-").replace("-", "_")
        if {key, name} & found.keys():
            raise click.BadParameter(f"{key} was given twice", ctx, param)
        if name in _FLAGS:
            if text not in _TRUTHS:
                raise click.BadParameter(f"{key} is true or false, not {text!r}", ctx, param)
            found[name] = _TRUTHS[text]
        else:
            found[key] = text
    return found


def _headers(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, text in _pairs(ctx, param, values):
        if key.endswith(":") and len(key) > 1:
            found[key[:-1]] = _parsed(ctx, param, key[:-1], text)
        else:
            found[key] = text
    return found


def _parsed(ctx: click.Context, param: click.Parameter, key: str, text: str) -> Any:
    try:
        return from_json(json.loads(text))
    except (ValueError, RecursionError, InvalidInputError) as error:
        raise click.BadParameter(f"{key}:={text} is no JSON: {error}", ctx, param) from None


def _properties(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, text in _pairs(ctx, param, values):
        name = key.replace("-", "_")
        if name not in Properties._fields or name == "headers":
            known = ", ".join(field for field in Properties._fields if field != "headers")
            hint = "give --header" if name == "headers" else f"there are {known}"
            raise click.BadParameter(f"{key} is no property: {hint}", ctx, param)
        if name in _NUMBERS:
            if not (text.isascii() and text.removeprefix("-").isdecimal()):
                raise click.BadParameter(f"{key} takes a whole number, not {text!r}", ctx, param)
            found[name] = int(text)
        else:
            found[name] = text
    return found


def arg_option(command: _Command) -> _Command:
    """Give a command the argument ``arguments``: what something is declared with."""
    return click.option(
        "--arg",
        "arguments",
        multiple=True,
        metavar="KEY=VALUE",
        callback=_arguments,
        help="An argument of the declaration, such as durable=false; may be repeated.",
    )(command)


def header_option(help: str) -> Callable[[_Command], _Command]:
    """Give a command the argument ``headers``."""
    return click.option(
        "--header", "headers", multiple=True, metavar="KEY=VALUE", callback=_headers, help=help
    )


def property_option(command: _Command) -> _Command:
    """Give a command the argument ``properties``: AMQP's, but for the headers."""
    return click.option(
        "--property",
        "properties",
        multiple=True,
        metavar="KEY=VALUE",
        callback=_properties,
        help="A property of the message, such as priority=3; may be repeated.",
    )(command)
