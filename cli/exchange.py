"""``logstore exchange``: declaring, listing and deleting exchanges."""

from __future__ import annotations

from typing import Any

import click

import logstore
from logstore.cli.options import help_alone, json_option, store_option
from logstore.cli.output import Lines, json_line, standard_output
from logstore.cli.pairs import arg_option
from logstore.cli.tables import print_table
from logstore.errors import InvalidInputError, UnknownExchangeError
from logstore.queues.definitions import EXCHANGE_TYPES, ExchangeDefinition

__all__ = ["exchange"]

_ARGUMENTS = ("durable", "auto_delete", "internal", "alternate_exchange")


@click.group(invoke_without_command=True)
@click.pass_context
def exchange(ctx: click.Context) -> None:
    """Declare exchanges, look at them, delete them."""
    help_alone(ctx)


@exchange.command(short_help="Declare an exchange.")
@click.argument("name")
@store_option
@click.option(
    "--type",
    "kind",
    type=click.Choice(EXCHANGE_TYPES),
    default="direct",
    show_default=True,
    help="How it finds the queues of a message.",
)
@arg_option
@json_option
def declare(name: str, store: str, kind: str, arguments: dict[str, Any], as_json: bool) -> None:
    """Declare the exchange NAME; the store is created, too, where there is none.

    To declare it once more in the same way changes nothing; in another way is refused.

    \b
    Example:
      logstore exchange declare shop --type topic
    """
    given = {}
    for key, value in arguments.items():
        name_of_key = key.removeprefix("x-").replace("-", "_")
        if name_of_key not in _ARGUMENTS:
            known = ", ".join(_ARGUMENTS)
            raise InvalidInputError(f"an exchange has no argument {key!r}: there are {known}")
        given[name_of_key] = value
    with logstore.open(store, create=True) as opened:
        definition = opened.exchange(name, kind, **given).definition
    if as_json:
        standard_output().write(json_line(_fields(definition)))
        return
    Lines().line(f"declared exchange {name}, type {kind}")


@exchange.command("list", short_help="List the exchanges of a store.")
@store_option
@json_option
def list_exchanges(store: str, as_json: bool) -> None:
    """List the exchanges of the store, those that are always there included.

    \b
    Example:
      logstore exchange list
    """
    with logstore.open(store, create=False, read_only=True) as opened:
        found = opened.queues.exchanges()
        sources = [binding.source for binding in opened.queues.bindings()]
    if as_json:
        for definition in found:
            fields = {**_fields(definition), "bindings": sources.count(definition.name)}
            standard_output().write(json_line(fields))
        return
    rows = [
        (
            definition.name or "(default)",
            definition.type,
            str(sources.count(definition.name)),
            _arguments_text(definition),
        )
        for definition in found
    ]
    print_table(Lines(), ("EXCHANGE", "TYPE", "BINDINGS", "ARGUMENTS"), rows)


def _arguments_text(definition: ExchangeDefinition) -> str:
    """What is not as it is by default."""
    usual = ExchangeDefinition(definition.name)
    return " ".join(
        f"{key}={value if isinstance(value, str) else str(value).lower()}"
        for key in _ARGUMENTS
        if (value := getattr(definition, key)) != getattr(usual, key)
    )


def _fields(definition: ExchangeDefinition) -> dict[str, object]:
    """An exchange's JSON object."""
    return {
        "name": definition.name,
        "type": definition.type,
        **{key: getattr(definition, key) for key in _ARGUMENTS},
    }


@exchange.command(short_help="Delete an exchange.")
@click.argument("name")
@store_option
@click.option("--if-unused", is_flag=True, help="Only if nothing is bound to it.")
@json_option
def delete(name: str, store: str, if_unused: bool, as_json: bool) -> None:
    """Delete the exchange NAME with its bindings. Queues keep the messages that they have.

    \b
    Example:
      logstore exchange delete idle --if-unused
    """
    with logstore.open(store, create=False) as opened:
        if not opened.queues.delete_exchange(name, if_unused=if_unused):
            raise UnknownExchangeError(f"there is no exchange called {name!r}")
    if as_json:
        standard_output().write(json_line({"name": name, "deleted": True}))
        return
    Lines().line(f"deleted exchange {name}")
