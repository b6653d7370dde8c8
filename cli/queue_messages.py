"""``logstore queue get``, ``peek``, ``purge``, ``describe`` and ``ledger``: what is in a queue."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

import click

from logstore.cli.options import json_option, open_store, store_option
from logstore.cli.output import (
    FAILED,
    Lines,
    count_of,
    json_bytes,
    json_line,
    standard_output,
    time_text,
)
from logstore.cli.queue import queue, queue_fields
from logstore.cli.tables import print_table
from logstore.queues.descriptions import LedgerDescription, describe_ledgers
from logstore.queues.field_table import to_json
from logstore.queues.message import Message
from logstore.queues.properties import Properties

__all__ = ["message_fields", "queue"]


def message_fields(message: Message) -> dict[str, Any]:
    """A message's JSON object."""
    envelope = message.envelope
    return {
        "body": json_bytes(envelope.body),
        "exchange": envelope.exchange,
        "routing_key": envelope.routing_key,
        "redelivered": message.redelivered,
        "delivery_count": message.delivery_count,
        "properties": _property_fields(envelope.properties),
    }


def _property_fields(properties: Properties) -> dict[str, Any]:
    return {
        name: to_json(value) for name, value in properties._asdict().items() if value is not None
    }


def _print(messages: Iterable[Message], *, as_json: bool) -> None:
    """Print messages, all of them handed on when it returns."""
    output = standard_output()
    for message in messages:
        output.write(json_line(message_fields(message)) if as_json else message.body + b"\n")
    output.flush()
    sys.stdout.flush()


_count_option = click.option(
    "--count",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="How many messages at most.",
)


@queue.command(short_help="Get messages from a queue.")
@click.argument("name", metavar="QUEUE")
@store_option
@_count_option
@click.option(
    "--no-ack", is_flag=True, help="Do not acknowledge them: they stay in the queue, redelivered."
)
@json_option
def get(name: str, store: str, count: int, no_ack: bool, as_json: bool) -> None:
    """Get messages from QUEUE, and acknowledge them once they are printed.

    Prints bodies, one a line, or with --json all there is to a message. Nothing is printed where
    the queue is empty.

    \b
    Example:
      logstore queue get payments --count 2 --json
    """
    with open_store(store) as opened:
        messages = opened.queue(name, passive=True).get_many(count)
        _print(messages, as_json=as_json)
        if messages and not no_ack:
            messages[-1].ack(multiple=True, durable=True)


@queue.command(short_help="Look at the first messages of a queue.")
@click.argument("name", metavar="QUEUE")
@store_option
@_count_option
@json_option
def peek(name: str, store: str, count: int, as_json: bool) -> None:
    """Print the first messages of QUEUE that are ready, and leave them as they are.

    \b
    Example:
      logstore queue peek payments --count 2
    """
    with open_store(store, read_only=True) as opened:
        _print(opened.queue(name, passive=True).peek(count), as_json=as_json)


@queue.command(short_help="Drop what waits in a queue.")
@click.argument("name", metavar="QUEUE")
@store_option
@json_option
def purge(name: str, store: str, as_json: bool) -> None:
    """Drop all messages that wait in QUEUE, delayed ones included. Those that were delivered stay
    their holders'.

    \b
    Example:
      logstore queue purge payments
    """
    with open_store(store) as opened:
        count = opened.queue(name, passive=True).purge()
    if as_json:
        standard_output().write(json_line({"name": name, "purged": count}))
        return
    Lines().line(f"purged {count_of(count, 'message')} from queue {name}")


@queue.command(short_help="Show a queue, its bindings and its consumers.")
@click.argument("name", metavar="QUEUE")
@store_option
@json_option
def describe(name: str, store: str, as_json: bool) -> None:
    """Show how QUEUE was declared, what is in it, its bindings and its consumers.

    \b
    Example:
      logstore queue describe payments
    """
    with open_store(store, read_only=True) as opened:
        found = opened.queue(name, passive=True)
        fields = queue_fields(found.definition, found.counts())
        consumers = [
            {
                "tag": row.tag,
                "session": row.session.hex(),
                "prefetch": row.prefetch,
                "exclusive": row.exclusive,
            }
            for row in found.consumers()
        ]
        bindings = [
            {
                "exchange": binding.source,
                "routing_key": binding.routing_key,
                "arguments": {key: to_json(value) for key, value in binding.arguments.items()},
            }
            for binding in opened.queues.bindings()
            if (binding.destination_type, binding.destination) == ("queue", name)
        ]
    if as_json:
        details = {"bindings": bindings, "consumer_details": consumers}
        standard_output().write(json_line({**fields, **details}))
        return
    lines = Lines()
    arguments: Any = fields.pop("arguments")
    fields |= arguments
    for key, value in fields.items():
        text = f"{value:,}" if type(value) is int else str(value)
        lines.line(f"{key}: {text.lower() if type(value) is bool else text}")
    if bindings:
        bound = [
            (str(b["exchange"]), str(b["routing_key"]), json.dumps(b["arguments"]))
            for b in bindings
        ]
        print_table(lines, ("EXCHANGE", "ROUTING KEY", "ARGUMENTS"), bound)
    if consumers:
        rows = [
            (str(c["tag"]), str(c["prefetch"]), "yes" if c["exclusive"] else "-", str(c["session"]))
            for c in consumers
        ]
        print_table(lines, ("CONSUMER", "PREFETCH", "EXCLUSIVE", "SESSION"), rows)


@queue.command(short_help="Show a queue's ledger, and check it.")
@click.argument("name", metavar="QUEUE")
@store_option
@json_option
@click.pass_context
def ledger(ctx: click.Context, name: str, store: str, as_json: bool) -> None:
    """Show the ledger of QUEUE: what was delivered, came back, waits or is dead; and check it, also
    against the log. Exits with 1 where it does not hold.

    \b
    Example:
      logstore queue ledger payments
    """
    with open_store(store, read_only=True) as opened:
        work_queue = opened.queues.work_queue(opened.queue(name, passive=True).definition)
        found = describe_ledgers(work_queue)
        faults = work_queue.check()
    if as_json:
        for level in found:
            standard_output().write(json_line(_ledger_fields(name, level)))
        for fault in faults:
            standard_output().write(json_line({"type": "finding", "queue": name, "text": fault}))
    else:
        _print_ledgers(found, faults)
    if faults:
        ctx.exit(FAILED)


def _ledger_fields(name: str, level: LedgerDescription) -> dict[str, Any]:
    return {
        "type": "ledger",
        "queue": name,
        **level._asdict(),
        "leases": [lease._asdict() for lease in level.leases],
        "spans": [span._asdict() for span in level.spans],
    }


def _print_ledgers(found: list[LedgerDescription], faults: list[str]) -> None:
    lines = Lines()
    for level in found:
        lines.line(
            f"level {level.level}: log {level.log_start_offset} to {level.log_end_offset}, "
            f"cursor {level.cursor}"
        )
        if level.leases:
            leases = [
                (
                    f"{one.first_offset}",
                    f"{one.last_offset}",
                    f"{one.unacked}",
                    f"{one.delivery_count}",
                    f"{one.milliseconds_left / 1000:.1f} s",
                    one.session,
                )
                for one in level.leases
            ]
            print_table(lines, _LEASES, leases)
        if level.spans:
            spans = [
                (
                    one.state,
                    f"{one.first_offset}",
                    f"{one.last_offset}",
                    f"{one.delivery_count}",
                    "-" if one.due_ms is None else time_text(one.due_ms),
                )
                for one in level.spans
            ]
            print_table(lines, _SPANS, spans)
    for fault in faults:
        lines.line(fault, style="red")
    lines.line(f"{count_of(len(faults), 'fault')} found" if faults else "the ledger holds")


_LEASES = ("LEASE FROM", "TO", "UNACKED", "DELIVERIES", "TIME LEFT", "SESSION")
_SPANS = ("STATE", "FROM", "TO", "DELIVERIES", "DUE")
