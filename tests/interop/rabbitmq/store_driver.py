"""The same steps done by logstore, through its public interface."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import logstore
from logstore import Store
from logstore.errors import (
    AccessRefusedError,
    InvalidInputError,
    LogstoreError,
    NackedError,
    PreconditionFailedError,
    ResourceLockedError,
    UnknownExchangeError,
    UnknownQueueError,
    UnroutableError,
)
from logstore.queues import Channel, Exchange, Message, Queue
from logstore.queues.consuming import Consumer
from logstore.queues.field_table import from_json

from .driver import ARGUMENTS, Driver, message, wait_for
from .language import Outcome, Step

_CODES: dict[type[LogstoreError], int] = {
    AccessRefusedError: 403,
    UnknownExchangeError: 404,
    UnknownQueueError: 404,
    ResourceLockedError: 405,
    PreconditionFailedError: 406,
    InvalidInputError: 406,
}
"""AMQP's reply codes, by our errors."""


class _Consumer:
    def __init__(self, consumer: Consumer, channel: str) -> None:
        self.consumer = consumer
        self.channel = channel
        self.received: deque[dict[str, Any]] = deque()
        self.cancelled = False


class StoreDriver(Driver):
    """Does steps on a store below ``directory``; each connection is a handle of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stores: dict[str, Store] = {}
        self._channels: dict[str, Channel] = {}
        self._consumers: dict[str, _Consumer] = {}
        self._messages: dict[tuple[str, str], Message] = {}
        """What was delivered, by channel and body."""
        self._exchanges: dict[str, Exchange] = {}
        self._queues: dict[str, Queue] = {}
        """What was declared, to speak of it when it is not there any more."""

    def close(self) -> None:
        """Close all handles."""
        for store in self._stores.values():
            store.close()

    def do(self, step: Step) -> Outcome:
        try:
            outcome = super().do(step)
        except LogstoreError as error:
            code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), None)
            if code is None:
                raise
            outcome = {"error": code}
        self._pump()
        return outcome

    def _pump(self) -> None:
        """Take what is there for each consumer: RabbitMQ pushes it at once."""
        for one in self._consumers.values():
            try:
                while not one.cancelled and (found := one.consumer.get(timeout=0)) is not None:
                    one.received.append(self._seen(one.channel, found))
            except UnknownQueueError:
                pass
            one.cancelled |= not one.consumer.is_active

    # Handles ----------------------------------------------------------------------------------

    def _store(self, name: str = "1") -> Store:
        if name not in self._stores:
            self._stores[name] = logstore.open(str(self._directory), maintenance_interval=None)
        return self._stores[name]

    def _channel_of(self, name: str) -> Channel:
        if name not in self._channels:
            connection = name.split(":")[0] if ":" in name else "1"
            self._channels[name] = self._store(connection).channel()
        return self._channels[name]

    def _store_of(self, channel: str) -> Store:
        return self._store(channel.split(":")[0] if ":" in channel else "1")

    # Declaring --------------------------------------------------------------------------------

    def _exchange(self, step: Step) -> Outcome:
        name = step.get("name", "")
        self._exchanges[name] = self._store().exchange(
            name,
            step["type"],
            durable=step.get("durable", True),
            auto_delete=step.get("auto_delete", False),
            internal=step.get("internal", False),
            alternate_exchange=step.get("alternate"),
        )
        return "ok"

    def _find_exchange(self, step: Step) -> Outcome:
        self._store().exchange(step.get("name", ""))
        return "ok"

    def _delete_exchange(self, step: Step) -> Outcome:
        self._store().queues.delete_exchange(
            step.get("name", ""), if_unused=step.get("if_unused", False)
        )
        return "ok"

    def _queue(self, step: Step) -> Outcome:
        name = step.get("name", "")
        self._queues[name] = self._store(step.get("on", "1")).queue(
            name,
            durable=step.get("durable", True),
            exclusive=step.get("exclusive", False),
            auto_delete=step.get("auto_delete", False),
            **{name: step[name] for name in ARGUMENTS if name in step},
        )
        return "ok"

    def _count(self, step: Step) -> Outcome:
        found = self._store(step.get("on", "1")).queue(step.get("name", ""), passive=True).counts()
        return {"ready": found.ready, "consumers": found.consumers}

    def _delete_queue(self, step: Step) -> Outcome:
        self._store(step.get("on", "1")).queues.delete_queue(
            step.get("name", ""),
            if_unused=step.get("if_unused", False),
            if_empty=step.get("if_empty", False),
        )
        return "ok"

    def _bind(self, step: Step) -> Outcome:
        store = self._store(step.get("on", "1"))
        store.queue(step["queue"], passive=True).bind(step.get("exchange", ""), *_binding(step))
        return "ok"

    def _unbind(self, step: Step) -> Outcome:
        self._queues[step["queue"]].unbind(step.get("exchange", ""), *_binding(step))
        return "ok"

    def _bind_exchange(self, step: Step) -> Outcome:
        self._store().exchange(step["exchange"]).bind(step.get("source", ""), *_binding(step))
        return "ok"

    def _unbind_exchange(self, step: Step) -> Outcome:
        exchange = self._exchanges[step["exchange"]]
        exchange.unbind(step.get("source", ""), *_binding(step))
        return "ok"

    def _purge(self, step: Step) -> Outcome:
        return self._store(step.get("on", "1")).queue(step.get("name", ""), passive=True).purge()

    # Publishing -------------------------------------------------------------------------------

    def _publish(self, step: Step) -> Outcome:
        given = dict(step.get("properties", {}))
        if "headers" in given:
            given["headers"] = {name: from_json(value) for name, value in given["headers"].items()}
        try:
            self._store().exchange(step.get("exchange", "")).publish(
                step.get("body", "").encode(),
                step.get("key", ""),
                mandatory=step.get("mandatory", False),
                acks=1,
                **given,
            )
        except UnroutableError as error:
            return {"returned": [error.reply_code, error.reply_text]}
        except NackedError:
            return "nacked"
        return "confirmed"

    # Consuming --------------------------------------------------------------------------------

    def _channel(self, step: Step) -> Outcome:
        self._channel_of(step["channel"]).prefetch = step.get("prefetch", 0)
        return "ok"

    def _get(self, step: Step) -> Outcome:
        name = step["channel"]
        queue = self._store_of(name).queue(step["queue"], passive=True)
        found = queue.get(no_ack=step.get("no_ack", False), channel=self._channel_of(name))
        return None if found is None else self._seen(name, found)

    def _drain(self, step: Step) -> Outcome:
        found = []
        while one := self._get({"queue": step["queue"], "channel": "drain", "no_ack": True}):
            found.append(one)
        return found

    def _seen(self, channel: str, found: Message) -> dict[str, Any]:
        self._messages[channel, found.body.decode()] = found
        properties = found.properties._asdict()
        return message(found.body, found.exchange, found.routing_key, found.redelivered, properties)

    def _consume(self, step: Step) -> Outcome:
        name = step["channel"]
        consumer = (
            self._store_of(name)
            .queue(step["queue"], passive=True)
            .consume(
                channel=self._channel_of(name),
                prefetch=step.get("prefetch", 0),
                no_ack=step.get("no_ack", False),
                exclusive=step.get("exclusive", False),
                tag=step["tag"],
            )
        )
        self._consumers[step["tag"]] = _Consumer(consumer, name)
        return "ok"

    def _receive(self, step: Step) -> Outcome:
        received = self._consumers[step["tag"]].received
        self._wait(f"{step}: {list(received)}", lambda: len(received) >= step["count"])
        return [received.popleft() for _ in range(step["count"])]

    def _receive_among(self, step: Step) -> Outcome:
        consumers = [self._consumers[tag] for tag in step["tags"]]
        self._wait(str(step), lambda: sum(len(one.received) for one in consumers) >= step["count"])
        found = [one for consumer in consumers for one in consumer.received]
        for consumer in consumers:
            consumer.received.clear()
        return sorted(found, key=lambda one: str(one["body"]))

    def _rest(self, step: Step) -> Outcome:
        self._pump()
        consumer = self._consumers[step["tag"]]
        found = list(consumer.received)
        consumer.received.clear()
        return found

    def _cancel(self, step: Step) -> Outcome:
        self._consumers[step["tag"]].consumer.cancel()
        return "ok"

    def _ack(self, step: Step) -> Outcome:
        found = self._messages[step["channel"], step["body"]]
        found.ack(multiple=step.get("multiple", False), flush=True)
        return "ok"

    def _ack_tag(self, step: Step) -> Outcome:
        channel = self._channel_of(step["channel"])
        channel.ack(step.get("tag", 0), multiple=step.get("multiple", False), flush=True)
        return "ok"

    def _nack(self, step: Step) -> Outcome:
        found = self._messages[step["channel"], step["body"]]
        found.nack(multiple=step.get("multiple", False), requeue=step.get("requeue", False))
        return "ok"

    def _reject(self, step: Step) -> Outcome:
        found = self._messages[step["channel"], step["body"]]
        found.reject(requeue=step.get("requeue", False))
        return "ok"

    def _recover(self, step: Step) -> Outcome:
        self._channel_of(step["channel"]).recover()
        return "ok"

    def _close(self, step: Step) -> Outcome:
        channel = self._channels.pop(step["channel"], None)
        if channel is not None:
            channel.close()
        return "ok"

    def _disconnect(self, step: Step) -> Outcome:
        name = step["on"]
        self._store(name).close()
        del self._stores[name]
        for channel in [one for one in self._channels if one.startswith(f"{name}:")]:
            del self._channels[channel]
        return "ok"

    # Waiting ----------------------------------------------------------------------------------

    def _wait(self, what: str, condition: Callable[[], Any]) -> None:
        def look() -> Any:
            self._pump()
            return condition()

        wait_for(what, look)

    def _wait_ready(self, step: Step) -> Outcome:
        wanted = int(step.get("count", 0))
        queue = self._store().queue(step["queue"], passive=True)

        self._wait(str(step), lambda: queue.counts().ready == wanted)
        return wanted

    def _wait_cancelled(self, step: Step) -> Outcome:
        consumer = self._consumers[step["tag"]]
        self._wait(str(step), lambda: consumer.cancelled)
        return "ok"

    def _wait_gone(self, step: Step) -> Outcome:
        probe = {"key": step["queue"], "body": "probe", "mandatory": True}
        self._wait(str(step), lambda: self._publish(probe) not in ("confirmed", "nacked"))
        return "ok"


def _binding(step: Step) -> tuple[str, dict[str, Any]]:
    headers = {name: from_json(value) for name, value in step.get("headers", {}).items()}
    return step.get("key", ""), headers
