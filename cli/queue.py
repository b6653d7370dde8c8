"""``logstore queue``: declaring, binding, listing and deleting queues, and publishing to them."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

import logstore
from logstore.cli.options import help_alone, json_option, store_option
from logstore.cli.output import Lines, count_of, json_line, standard_output
from logstore.cli.pairs import arg_option, header_option, property_option
from logstore.cli.tables import print_table
from logstore.errors import InvalidInputError, UnknownExchangeError, UnknownQueueError
from logstore.queues.definitions import QueueDefinition
from logstore.queues.exchange import Exchange
from logstore.queues.field_table import to_json
from logstore.queues.queue import QueueCounts
from logstore.store import Store

__all__ = ["queue", "queue_fields"]


@click.group(invoke_without_command=True)
@click.pass_context
def queue(ctx: click.Context) -> None:
    """Declare queues, bind them to exchanges, publish to them, look at them, delete them."""
    help_alone(ctx)


@queue.command(short_help="Declare a queue.")
@click.argument("name")
@store_option
@arg_option
@json_option
def declare(name: str, store: str, arguments: dict[str, Any], as_json: bool) -> None:
    """Declare the queue NAME; the store is created, too, where there is none.

    Arguments are RabbitMQ's, with or without x-: message_ttl, expires, max_length,
    max_length_bytes, overflow, dead_letter_exchange, dead_letter_routing_key, delivery_limit,
    max_priority, consumer_timeout; Kafka's retention_ms and retention_bytes, for what is
    acknowledged; and durable, auto_delete. To declare it once more in the same way changes
    nothing; in another way is refused.

    \b
    Example:
      logstore queue declare refunds --arg dead_letter_exchange=failed --arg max_priority=5
    """
    if arguments.get("exclusive"):
        raise InvalidInputError(
            f"exclusive=true: queue {name!r} would be this command's alone, and gone with it"
        )
    with logstore.open(store, create=True) as opened:
        # Given as it is by default, so that a queue with other arguments is refused.
        declared = opened.queue(name, **{"durable": True, **arguments})
        fields = queue_fields(declared.definition, declared.counts())
    if as_json:
        standard_output().write(json_line(fields))
        return
    Lines().line(f"declared queue {declared.name}")


@queue.command(short_help="Bind a queue to an exchange.")
@click.argument("queue")
@click.argument("exchange")
@click.argument("routing_key", default="")
@store_option
@header_option(
    "What a headers exchange compares, x-match included; KEY:=VALUE where VALUE is JSON. May be "
    "repeated."
)
@json_option
def bind(
    queue: str, exchange: str, routing_key: str, store: str, headers: dict[str, Any], as_json: bool
) -> None:
    """Bind QUEUE to EXCHANGE: what is published there comes to the queue from then on, where the
    ROUTING_KEY (for a topic exchange, the pattern) or the headers fit.

    \b
    Example:
      logstore queue bind payments shop 'order.payment.#'
    """
    with logstore.open(store, create=False) as opened:
        opened.queue(queue, passive=True).bind(exchange, routing_key, headers)
    if as_json:
        standard_output().write(json_line(_binding(queue, exchange, routing_key, headers)))
        return
    Lines().line(f"bound queue {queue} to exchange {exchange}")


@queue.command(short_help="Take a binding of a queue away.")
@click.argument("queue")
@click.argument("exchange")
@click.argument("routing_key", default="")
@store_option
@header_option("As the binding was made with; may be repeated.")
@json_option
@click.pass_context
def unbind(
    ctx: click.Context,
    queue: str,
    exchange: str,
    routing_key: str,
    store: str,
    headers: dict[str, Any],
    as_json: bool,
) -> None:
    """Take away the binding of QUEUE to EXCHANGE with this ROUTING_KEY and these headers.

    \b
    Example:
      logstore queue unbind payments shop 'order.#'
    """
    with logstore.open(store, create=False) as opened:
        found = opened.queue(queue, passive=True).unbind(exchange, routing_key, headers)
    if not found:
        raise click.ClickException(
            f"queue {queue!r} is not bound to exchange {exchange!r} with routing key "
            f"{routing_key!r}" + (" and these headers" if headers else "")
        )
    if as_json:
        standard_output().write(json_line(_binding(queue, exchange, routing_key, headers)))
        return
    Lines().line(f"unbound queue {queue} from exchange {exchange}")


def _binding(
    queue: str, exchange: str, routing_key: str, headers: dict[str, Any]
) -> dict[str, object]:
    return {
        "queue": queue,
        "exchange": exchange,
        "routing_key": routing_key,
        "arguments": {name: to_json(value) for name, value in headers.items()},
    }


@queue.command(short_help="Publish a message.")
@click.argument("exchange")
@click.argument("routing_key")
@click.argument("body", default="-")
@store_option
@property_option
@header_option("A header of the message; KEY:=VALUE where VALUE is JSON. May be repeated.")
@click.option(
    "--mandatory", is_flag=True, help="Fail where no queue gets it, instead of dropping it."
)
@click.option(
    "--acks",
    type=click.Choice(["0", "1", "all"]),
    default="all",
    show_default=True,
    help="What to wait for: 0 and 1 the operating system, all stable storage.",
)
@json_option
def publish(
    exchange: str,
    routing_key: str,
    body: str,
    store: str,
    properties: dict[str, Any],
    headers: dict[str, Any],
    mandatory: bool,
    acks: str,
    as_json: bool,
) -> None:
    """Publish BODY (all of standard input where it is - or left out) to EXCHANGE, with ROUTING_KEY.

    '' is the default exchange: there the routing key is a queue's name.

    \b
    Examples:
      logstore queue publish shop order.payment.eu '{"total": 12}' --property priority=3
      logstore queue publish '' payments < message.json
    """
    if body != "-":
        data = os.fsencode(body)
    elif sys.stdin is None:
        raise click.ClickException("standard input is closed")
    else:
        data = sys.stdin.buffer.read()
    with logstore.open(store, create=False) as opened:
        confirm = _found(opened, exchange).publish(
            data,
            routing_key,
            headers=headers or None,
            mandatory=mandatory,
            acks="all" if acks == "all" else 1 if acks == "1" else 0,
            **properties,
        )
    if as_json:
        standard_output().write(json_line({"queues": list(confirm.queues)}))
        return
    names = ", ".join(confirm.queues)
    Lines().line(
        f"published to {count_of(len(confirm.queues), 'queue')}: {names}"
        if names
        else "no queue is bound so that it gets the message: it was dropped"
    )


def _found(store: Store, exchange: str) -> Exchange:
    """An exchange that is there."""
    try:
        return store.exchange(exchange)
    except UnknownExchangeError:
        raise UnknownExchangeError(
            f"there is no exchange called {exchange!r}: 'logstore exchange declare' makes one"
        ) from None


@queue.command("list", short_help="List the queues of a store.")
@store_option
@json_option
def list_queues(store: str, as_json: bool) -> None:
    """List the queues of the store, with what is in them.

    \b
    Example:
      logstore queue list
    """
    with logstore.open(store, create=False, read_only=True) as opened:
        queues = opened.queues
        found = [(queue, queues.work_queue(queue).counts()) for queue in queues.queues()]
    if as_json:
        for definition, counts in found:
            standard_output().write(json_line(queue_fields(definition, counts)))
        return
    rows = [
        (
            definition.name,
            *map(str, (counts.ready, counts.unacked, counts.consumers)),
            _arguments_text(definition),
        )
        for definition, counts in found
    ]
    print_table(Lines(), ("QUEUE", "READY", "UNACKED", "CONSUMERS", "ARGUMENTS"), rows)


def _arguments_text(definition: QueueDefinition) -> str:
    """What is not as it is by default."""
    flags = {
        "durable=false": not definition.durable,
        "exclusive=true": definition.exclusive is not None,
        "auto_delete=true": definition.auto_delete,
    }
    shown = [text for text, holds in flags.items() if holds]
    return " ".join([*shown, *(f"{k}={v}" for k, v in definition.arguments.given().items())])


def queue_fields(definition: QueueDefinition, counts: QueueCounts) -> dict[str, object]:
    """A queue's JSON object."""
    return {
        "name": definition.name,
        **counts._asdict(),
        "durable": definition.durable,
        "exclusive": definition.exclusive is not None,
        "auto_delete": definition.auto_delete,
        "arguments": definition.arguments.given(),
    }


@queue.command(short_help="Delete a queue.")
@click.argument("name")
@store_option
@click.option("--if-unused", is_flag=True, help="Only if it has no consumers.")
@click.option("--if-empty", is_flag=True, help="Only if it holds no messages.")
@json_option
def delete(name: str, store: str, if_unused: bool, if_empty: bool, as_json: bool) -> None:
    """Delete the queue NAME with its bindings and all messages in it, at once and for ever.

    \b
    Example:
      logstore queue delete empty --if-empty
    """
    with logstore.open(store, create=False) as opened:
        if not opened.queues.delete_queue(name, if_unused=if_unused, if_empty=if_empty):
            raise UnknownQueueError(f"there is no queue called {name!r}")
    if as_json:
        standard_output().write(json_line({"name": name, "deleted": True}))
        return
    Lines().line(f"deleted queue {name}")
