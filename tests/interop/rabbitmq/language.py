"""The language of the scenarios: what is done, step by step, in the same words for both sides.

A scenario is data: a name, and steps that JSON can hold. A driver does them one after the other,
and says of each what came of it (its *outcome*, JSON again); outcomes in their order are the
transcript. Two drivers that behave alike write the same transcript.

- Bodies are text, and name messages: ``ack("b")`` acknowledges the last message ``b`` that its
  channel was delivered.
- Channels are made when they are named first. ``"2:c"`` is a channel of another connection (here:
  of another store handle); without a number it is the first one's.
- Nothing waits for a time: ``receive``, ``wait_ready`` and their like wait for what has to come, up
  to a limit that only a failure reaches. ``pause`` gives time to what must *not* happen.
- An error is an outcome: ``{"error": 406}``, AMQP's reply code.
"""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["Outcome", "Scenario", "Step", "scenario"]

Step = dict[str, Any]
Outcome = Any


class Scenario(NamedTuple):
    """What is done."""

    name: str
    steps: tuple[Step, ...]


def scenario(name: str, *steps: Step | list[Step]) -> Scenario:
    """A scenario of these steps; lists of steps are taken apart."""
    flat: list[Step] = []
    for step in steps:
        flat.extend(step if isinstance(step, list) else [step])
    return Scenario(name, tuple(flat))


def _step(what: str, **given: Any) -> Step:
    """What is false, empty or zero is left out, so that records stay short; drivers take what is
    missing for just that."""
    return {"do": what, **{name: value for name, value in given.items() if value}}


# Declaring ----------------------------------------------------------------------------------


def exchange(name: str, type: str, **options: Any) -> Step:
    """Declare an exchange; options: ``durable``, ``auto_delete``, ``internal``, ``alternate``."""
    return {"do": "exchange", "name": name, "type": type, **options}


def find_exchange(name: str) -> Step:
    """Declare it passively."""
    return _step("find_exchange", name=name)


def delete_exchange(name: str, *, if_unused: bool = False) -> Step:
    return _step("delete_exchange", name=name, if_unused=if_unused)


def queue(name: str, *, on: str = "", **options: Any) -> Step:
    """Declare a queue; options: ``durable``, ``exclusive``, ``auto_delete``, and arguments by the
    names of ``QueueArguments`` without units (``message_ttl``, ``max_length``, ...). ``quorum``
    asks RabbitMQ for a quorum queue, which alone knows ``delivery_limit``. ``on``: a connection."""
    return {**_step("queue", name=name, on=on), **options}


def count(name: str, *, on: str = "") -> Step:
    """Declare it passively: how many messages are ready, how many consume."""
    return _step("count", name=name, on=on)


def delete_queue(
    name: str, *, if_unused: bool = False, if_empty: bool = False, on: str = ""
) -> Step:
    return _step("delete_queue", name=name, if_unused=if_unused, if_empty=if_empty, on=on)


def bind(
    queue: str, exchange: str, key: str = "", headers: dict[str, Any] | None = None, on: str = ""
) -> Step:
    """Bind a queue; ``headers`` are the arguments, in their JSON form."""
    return _step("bind", queue=queue, exchange=exchange, key=key, headers=headers, on=on)


def unbind(queue: str, exchange: str, key: str = "", headers: dict[str, Any] | None = None) -> Step:
    return _step("unbind", queue=queue, exchange=exchange, key=key, headers=headers)


def bind_exchange(
    destination: str, source: str, key: str = "", headers: dict[str, Any] | None = None
) -> Step:
    """``destination`` gets messages from ``source``."""
    return _step("bind_exchange", exchange=destination, source=source, key=key, headers=headers)


def unbind_exchange(destination: str, source: str, key: str = "") -> Step:
    return _step("unbind_exchange", exchange=destination, source=source, key=key)


def purge(name: str, *, on: str = "") -> Step:
    """Its outcome is how many messages it were."""
    return _step("purge", name=name, on=on)


# Publishing ---------------------------------------------------------------------------------


def publish(
    exchange: str, key: str, body: str, *, mandatory: bool = False, **properties: Any
) -> Step:
    """Publish with a confirm; ``headers`` are in their JSON form."""
    return _step(
        "publish",
        exchange=exchange,
        key=key,
        body=body,
        mandatory=mandatory,
        properties=properties,
    )


def publish_to(queue: str, *bodies: str, **properties: Any) -> list[Step]:
    """Publish messages to a queue through the default exchange."""
    return [publish("", queue, body, **properties) for body in bodies]


# Consuming ----------------------------------------------------------------------------------


def channel(name: str, *, prefetch: int) -> Step:
    """The prefetch of all consumers of a channel together, from now on."""
    return _step("channel", channel=name, prefetch=prefetch)


def get(queue: str, *, channel: str = "c", no_ack: bool = False) -> Step:
    """The first message, or None."""
    return _step("get", queue=queue, channel=channel, no_ack=no_ack)


def drain(queue: str) -> Step:
    """Get and acknowledge all that is ready."""
    return _step("drain", queue=queue)


def consume(
    queue: str,
    tag: str,
    *,
    channel: str = "c",
    prefetch: int = 0,
    no_ack: bool = False,
    exclusive: bool = False,
) -> Step:
    """A consumer, known by its tag from now on."""
    return _step(
        "consume",
        queue=queue,
        tag=tag,
        channel=channel,
        prefetch=prefetch,
        no_ack=no_ack,
        exclusive=exclusive,
    )


def receive(tag: str, count: int) -> Step:
    """The next so many messages of a consumer."""
    return _step("receive", tag=tag, count=count)


def receive_among(tags: list[str], count: int) -> Step:
    """So many messages of several consumers together, in the order of their bodies: who of them
    gets which is nobody's promise."""
    return _step("receive_among", tags=tags, count=count)


def rest(tag: str) -> Step:
    """All that a consumer was delivered, and that was not received; there may be nothing."""
    return _step("rest", tag=tag)


def cancel(tag: str) -> Step:
    return _step("cancel", tag=tag)


def ack(body: str, *, channel: str = "c", multiple: bool = False) -> Step:
    return _step("ack", body=body, channel=channel, multiple=multiple)


def ack_tag(tag: int, *, channel: str = "c", multiple: bool = False) -> Step:
    """Acknowledge by the number of a delivery."""
    return _step("ack_tag", tag=tag, channel=channel, multiple=multiple)


def nack(body: str, *, channel: str = "c", multiple: bool = False, requeue: bool = True) -> Step:
    return _step("nack", body=body, channel=channel, multiple=multiple, requeue=requeue)


def reject(body: str, *, channel: str = "c", requeue: bool = False) -> Step:
    return _step("reject", body=body, channel=channel, requeue=requeue)


def recover(*, channel: str = "c") -> Step:
    return _step("recover", channel=channel)


def close(channel: str = "c") -> Step:
    return _step("close", channel=channel)


def disconnect(connection: str) -> Step:
    """Close a connection (here: a store handle), with all its channels."""
    return _step("disconnect", on=connection)


# Waiting ------------------------------------------------------------------------------------


def wait_ready(queue: str, count: int) -> Step:
    """Until so many messages are ready."""
    return _step("wait_ready", queue=queue, count=count)


def wait_cancelled(tag: str) -> Step:
    """Until a consumer gets no more, by nobody's wish."""
    return _step("wait_cancelled", tag=tag)


def wait_gone(queue: str) -> Step:
    """Until a queue is not there. (It is published to, since to ask for a queue is to use it.)"""
    return _step("wait_gone", queue=queue)


def pause(milliseconds: int) -> Step:
    """Time for what must not happen."""
    return _step("pause", ms=milliseconds)
