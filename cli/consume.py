"""``logstore consume``: a command for each message."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time

import click

import logstore
from logstore.cli.interrupts import Interrupts
from logstore.cli.options import json_option, store_option
from logstore.cli.output import complain, json_line, standard_output
from logstore.cli.queue_messages import message_fields
from logstore.queues.message import Message

__all__ = ["consume"]

_STANDARD_ERROR = 2
_NOT_RUN = (126, 127)
"""The shell's exit codes for a command that is no program, and one that is not there (POSIX)."""


@click.command(short_help="Run a command for each message of a queue.")
@click.argument("name", metavar="QUEUE")
@store_option
@click.option(
    "--exec",
    "command",
    required=True,
    metavar="CMD",
    help="What to run, by the shell, for each message, whose body is its standard input. The "
    "environment has LOGSTORE_QUEUE, LOGSTORE_EXCHANGE, LOGSTORE_ROUTING_KEY and "
    "LOGSTORE_DELIVERY_COUNT.",
)
@click.option(
    "--on-failure",
    type=click.Choice(["requeue", "reject"]),
    default="requeue",
    show_default=True,
    help="What becomes of a message whose command fails: it is delivered again, or given up, and "
    "dead-lettered if the queue says where.",
)
@click.option(
    "--retry-pause",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait after a command that failed.",
)
@click.option(
    "--count", type=click.IntRange(min=1), metavar="N", help="End after so many messages."
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="End when there has been no message for so long; 0: when the queue is empty.",
)
@click.option(
    "--prefetch",
    type=click.IntRange(0, 65_535),
    default=1,
    show_default=True,
    metavar="N",
    help="How many messages to hold at once.",
)
@json_option
def consume(
    name: str,
    store: str,
    command: str,
    on_failure: str,
    retry_pause: float,
    count: int | None,
    timeout: float | None,
    prefetch: int,
    as_json: bool,
) -> None:
    """Run a command for each message of QUEUE, one after the other, until it is interrupted.

    A message is acknowledged when its command exits with 0. A command that the shell cannot run
    (exit code 126 or 127) ends it, and the message stays. SIGTERM ends it when the command that
    runs has ended, Ctrl-C at once. With --json a line tells of each message, and what the commands
    print goes to standard error.

    \b
    Examples:
      logstore consume payments --exec 'cat >> payments.txt' --timeout 0
      logstore consume payments --exec ./handle --on-failure reject --count 10 --timeout 0
    """
    if not command.strip():
        raise click.UsageError("--exec takes a command: an empty one would acknowledge everything")
    stop = Interrupts(signal.SIGTERM)
    with logstore.open(store, create=False) as opened, stop:
        queue = opened.queue(name, passive=True)
        try:
            with queue.consume(prefetch=prefetch, timeout=timeout) as consumer:
                for done, message in enumerate(consumer, 1):
                    with stop.shield():
                        code = _run(command, message, name, quiet=as_json)
                        _settle(message, code, on_failure, as_json=as_json)
                    if done == count:
                        break
                    if code:
                        time.sleep(retry_pause)
        except KeyboardInterrupt:
            if not stop.came:
                raise


def _settle(message: Message, code: int, on_failure: str, *, as_json: bool) -> None:
    """Say what became of a message, to the queue and to the user."""
    if code in _NOT_RUN:
        message.nack()
        _tell(message, code, "requeue", as_json=as_json)
        raise click.ClickException("the shell cannot run the command: no more messages are taken")
    if code == 0:
        message.ack(flush=True)
    else:
        message.nack(requeue=on_failure == "requeue")
    _tell(message, code, on_failure, as_json=as_json)


def _run(command: str, message: Message, queue: str, *, quiet: bool) -> int:
    """Run the command, and return its exit code: negative, where a signal has ended it."""
    environment = {
        **os.environ,
        "LOGSTORE_QUEUE": queue,
        "LOGSTORE_EXCHANGE": message.exchange,
        "LOGSTORE_ROUTING_KEY": message.routing_key,
        "LOGSTORE_DELIVERY_COUNT": str(message.delivery_count),
    }
    output = _STANDARD_ERROR if quiet else None
    done = subprocess.run(
        command, shell=True, input=message.body, env=environment, stdout=output, check=False
    )
    return done.returncode


def _tell(message: Message, code: int, on_failure: str, *, as_json: bool) -> None:
    if as_json:
        outcome = "ack" if code == 0 else on_failure
        fields = {**message_fields(message), "exit_code": code, "outcome": outcome}
        standard_output().write(json_line(fields))
        standard_output().flush()
    elif code:
        what = "comes back" if on_failure == "requeue" else "is given up"
        complain(f"the command {_ending(code)}: the message {what}")


def _ending(code: int) -> str:
    if code >= 0:
        return f"exited with {code}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"
