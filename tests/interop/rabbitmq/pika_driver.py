"""Steps done by RabbitMQ, through pika."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from typing import Any

import pika
import pika.data
from pika.exceptions import (
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    NackError,
    UnroutableError,
)

from logstore.queues.field_table import from_json

from .driver import ARGUMENTS, Driver, message, wait_for
from .language import Outcome, Step

_PROPERTIES = (
    "content_type",
    "content_encoding",
    "delivery_mode",
    "priority",
    "correlation_id",
    "reply_to",
    "expiration",
    "message_id",
    "timestamp",
    "type",
    "user_id",
    "app_id",
)

# pika cannot write AMQP's doubles, and reads them as whole numbers.
_encode_value = pika.data.encode_value
_decode_value = pika.data.decode_value
_DOUBLE = struct.Struct(">cd")


def _encode_with_double(pieces: list[bytes], value: Any) -> int:
    if not isinstance(value, float):
        return int(_encode_value(pieces, value))
    pieces.append(_DOUBLE.pack(b"d", value))
    return _DOUBLE.size


def _decode_with_double(encoded: bytes, offset: int) -> tuple[Any, int]:
    if encoded[offset : offset + 1] != b"d":
        value, end = _decode_value(encoded, offset)
        return value, int(end)
    return _DOUBLE.unpack_from(encoded, offset)[1], offset + _DOUBLE.size


pika.data.encode_value = _encode_with_double
pika.data.decode_value = _decode_with_double


class _Consumer:
    def __init__(self, queue: str, channel: str) -> None:
        self.queue = queue
        self.channel = channel
        self.received: deque[dict[str, Any]] = deque()
        self.cancelled = False


class PikaDriver(Driver):
    """Does steps on a server, and takes away what it has made when it is closed.

    What may be refused is done on a channel of its own, since an error closes the channel.
    """

    def __init__(self, parameters: pika.ConnectionParameters) -> None:
        self._parameters = parameters
        self._connections: dict[str, Any] = {}
        self._channels: dict[str, Any] = {}
        self._consumers: dict[str, _Consumer] = {}
        self._tags: dict[tuple[str, str], int] = {}
        """Delivery tags, by channel and body."""
        self._limits: dict[str, int] = {}
        """The prefetch of whole channels."""
        self._prefetch: dict[str, int] = {}
        """Of the next consumer of a channel."""
        self._made: list[tuple[str, str]] = []

    def close(self) -> None:
        """Close all connections, and take away what the scenario has made."""
        for name in [name for name in self._connections if name != "1"]:
            self._connections[name].close()
            self._forget(name)
        for kind, name in dict.fromkeys(self._made):
            delete = f"{kind}_delete"
            self._try("1", lambda channel: getattr(channel, delete)(name))  # noqa: B023 - at once
        for connection in self._connections.values():
            connection.close()

    # Channels ---------------------------------------------------------------------------------

    def _connection(self, name: str) -> Any:
        if name not in self._connections:
            self._connections[name] = pika.BlockingConnection(self._parameters)
        return self._connections[name]

    def _channel_of(self, name: str) -> Any:
        if name not in self._channels or self._channels[name].is_closed:
            channel = self._connection(_connection_of(name)).channel()
            channel.add_on_cancel_callback(self._cancelled)
            self._channels[name] = channel
        return self._channels[name]

    def _cancelled(self, frame: Any) -> None:
        self._consumers[frame.method.consumer_tag].cancelled = True

    def _try(self, connection: str, act: Callable[[Any], Any]) -> Any:
        """Do what may be refused."""
        name = f"{connection}:admin"
        try:
            return act(self._channel_of(name))
        except ChannelClosedByBroker as error:
            return {"error": error.reply_code}
        except ConnectionClosedByBroker as error:
            self._forget(connection)
            return {"error": error.reply_code}

    def _admin(self, step: Step, act: Callable[[Any], Any]) -> Outcome:
        found = self._try(step.get("on", "1"), act)
        return found if isinstance(found, dict) else "ok"

    def _sync(self, name: str, act: Callable[[Any], Any] = lambda channel: None) -> Outcome:
        """Do something that is not answered, and return when the server has done it."""
        channel = self._channel_of(name)
        try:
            act(channel)
            channel.exchange_declare("amq.direct", passive=True)
        except ChannelClosedByBroker as error:
            return {"error": error.reply_code}
        return "ok"

    # Declaring --------------------------------------------------------------------------------

    def _exchange(self, step: Step) -> Outcome:
        alternate = step.get("alternate")
        self._made.append(("exchange", step.get("name", "")))
        return self._admin(
            step,
            lambda channel: channel.exchange_declare(
                step.get("name", ""),
                step["type"],
                durable=step.get("durable", True),
                auto_delete=step.get("auto_delete", False),
                internal=step.get("internal", False),
                arguments=None if alternate is None else {"alternate-exchange": alternate},
            ),
        )

    def _find_exchange(self, step: Step) -> Outcome:
        return self._admin(step, lambda c: c.exchange_declare(step.get("name", ""), passive=True))

    def _delete_exchange(self, step: Step) -> Outcome:
        if_unused = step.get("if_unused", False)
        return self._admin(
            step, lambda c: c.exchange_delete(step.get("name", ""), if_unused=if_unused)
        )

    def _queue(self, step: Step) -> Outcome:
        arguments = {
            f"x-{name.replace('_', '-')}": step[name] for name in ARGUMENTS if name in step
        }
        if step.get("quorum"):
            arguments["x-queue-type"] = "quorum"
        self._made.append(("queue", step.get("name", "")))
        return self._admin(
            step,
            lambda channel: channel.queue_declare(
                step.get("name", ""),
                durable=step.get("durable", True),
                exclusive=step.get("exclusive", False),
                auto_delete=step.get("auto_delete", False),
                arguments=arguments,
            ),
        )

    def _count(self, step: Step) -> Outcome:
        found = self._try(
            step.get("on", "1"),
            lambda c: c.queue_declare(step.get("name", ""), passive=True).method,
        )
        if isinstance(found, dict):
            return found
        return {"ready": found.message_count, "consumers": found.consumer_count}

    def _delete_queue(self, step: Step) -> Outcome:
        return self._admin(
            step,
            lambda channel: channel.queue_delete(
                step.get("name", ""),
                if_unused=step.get("if_unused", False),
                if_empty=step.get("if_empty", False),
            ),
        )

    def _bind(self, step: Step) -> Outcome:
        return self._admin(step, lambda c: c.queue_bind(*_binding(step, "queue", "exchange")))

    def _unbind(self, step: Step) -> Outcome:
        return self._admin(step, lambda c: c.queue_unbind(*_binding(step, "queue", "exchange")))

    def _bind_exchange(self, step: Step) -> Outcome:
        return self._admin(step, lambda c: c.exchange_bind(*_binding(step, "exchange", "source")))

    def _unbind_exchange(self, step: Step) -> Outcome:
        return self._admin(step, lambda c: c.exchange_unbind(*_binding(step, "exchange", "source")))

    def _purge(self, step: Step) -> Outcome:
        found = self._try(step.get("on", "1"), lambda c: c.queue_purge(step.get("name", "")).method)
        return found if isinstance(found, dict) else found.message_count

    # Publishing -------------------------------------------------------------------------------

    def _publish(self, step: Step) -> Outcome:
        given = dict(step.get("properties", {}))
        if "headers" in given:
            given["headers"] = {name: from_json(value) for name, value in given["headers"].items()}
        if "expiration" in given:
            given["expiration"] = str(given["expiration"])
        channel = self._channel_of("1:publish")
        if not getattr(channel, "_delivery_confirmation", False):
            channel.confirm_delivery()
        try:
            channel.basic_publish(
                step.get("exchange", ""),
                step.get("key", ""),
                step.get("body", "").encode(),
                pika.BasicProperties(**given),
                mandatory=step.get("mandatory", False),
            )
        except UnroutableError as error:
            returned = error.messages[0].method
            return {"returned": [returned.reply_code, returned.reply_text]}
        except NackError:
            return "nacked"
        except ChannelClosedByBroker as error:
            return {"error": error.reply_code}
        return "confirmed"

    # Consuming --------------------------------------------------------------------------------

    def _channel(self, step: Step) -> Outcome:
        name = step["channel"]
        self._limits[name] = prefetch = step.get("prefetch", 0)
        self._channel_of(name).basic_qos(prefetch_count=prefetch, global_qos=True)
        return "ok"

    def _get(self, step: Step) -> Outcome:
        name = step["channel"]
        try:
            method, properties, body = self._channel_of(name).basic_get(
                step["queue"], auto_ack=step.get("no_ack", False)
            )
        except ChannelClosedByBroker as error:
            return {"error": error.reply_code}
        return None if method is None else self._seen(name, method, properties, body)

    def _drain(self, step: Step) -> Outcome:
        found = []
        while message := self._get({"queue": step["queue"], "channel": "drain", "no_ack": True}):
            found.append(message)
            if "error" in message:
                break
        return found

    def _seen(self, channel: str, method: Any, properties: Any, body: bytes) -> dict[str, Any]:
        self._tags[channel, body.decode()] = method.delivery_tag
        given = {name: getattr(properties, name) for name in _PROPERTIES}
        if given["expiration"] is not None:
            given["expiration"] = int(given["expiration"])
        given["headers"] = dict(properties.headers or {})
        return message(body, method.exchange, method.routing_key, method.redelivered, given)

    def _consume(self, step: Step) -> Outcome:
        name, tag = step["channel"], step["tag"]
        channel = self._channel_of(name)
        prefetch = step.get("prefetch", 0)
        if prefetch != self._prefetch.get(name, 0):
            self._prefetch[name] = prefetch
            channel.basic_qos(prefetch_count=prefetch)
            if name in self._limits:  # the line above has lifted the channel's own
                channel.basic_qos(prefetch_count=self._limits[name], global_qos=True)
        consumer = self._consumers[tag] = _Consumer(step["queue"], name)

        def on_message(_: Any, method: Any, properties: Any, body: bytes) -> None:
            consumer.received.append(self._seen(name, method, properties, body))

        try:
            channel.basic_consume(
                step["queue"],
                on_message,
                auto_ack=step.get("no_ack", False),
                exclusive=step.get("exclusive", False),
                consumer_tag=tag,
            )
        except ChannelClosedByBroker as error:
            return {"error": error.reply_code}
        return "ok"

    def _poll(self) -> None:
        for connection in self._connections.values():
            connection.process_data_events(time_limit=0)

    def _receive(self, step: Step) -> Outcome:
        received = self._consumers[step["tag"]].received

        def enough() -> bool:
            self._poll()
            return len(received) >= int(step["count"])

        wait_for(f"{step}: {list(received)}", enough)
        return [received.popleft() for _ in range(step["count"])]

    def _receive_among(self, step: Step) -> Outcome:
        consumers = [self._consumers[tag] for tag in step["tags"]]

        def enough() -> bool:
            self._poll()
            return sum(len(one.received) for one in consumers) >= int(step["count"])

        wait_for(str(step), enough)
        found = [one for consumer in consumers for one in consumer.received]
        for consumer in consumers:
            consumer.received.clear()
        return sorted(found, key=lambda one: one["body"])

    def _rest(self, step: Step) -> Outcome:
        consumer = self._consumers[step["tag"]]
        if not consumer.cancelled:
            # The queue answers behind what it has delivered, and the channel passes both on in
            # their order.
            self._channel_of(consumer.channel).queue_declare(consumer.queue, passive=True)
        self._poll()
        found = list(consumer.received)
        consumer.received.clear()
        return found

    def _cancel(self, step: Step) -> Outcome:
        consumer = self._consumers[step["tag"]]
        self._channel_of(consumer.channel).basic_cancel(step["tag"])
        consumer.cancelled = True
        return "ok"

    def _ack(self, step: Step) -> Outcome:
        name = step["channel"]
        tag = self._tags[name, step["body"]]
        multiple = step.get("multiple", False)
        return self._sync(name, lambda c: c.basic_ack(tag, multiple=multiple))

    def _ack_tag(self, step: Step) -> Outcome:
        tag, multiple = step.get("tag", 0), step.get("multiple", False)
        return self._sync(step["channel"], lambda c: c.basic_ack(tag, multiple=multiple))

    def _nack(self, step: Step) -> Outcome:
        name = step["channel"]
        tag = self._tags[name, step["body"]]
        multiple, requeue = step.get("multiple", False), step.get("requeue", False)
        return self._sync(name, lambda c: c.basic_nack(tag, multiple=multiple, requeue=requeue))

    def _reject(self, step: Step) -> Outcome:
        name = step["channel"]
        tag, requeue = self._tags[name, step["body"]], step.get("requeue", False)
        return self._sync(name, lambda c: c.basic_reject(tag, requeue=requeue))

    def _recover(self, step: Step) -> Outcome:
        return self._sync(step["channel"], lambda c: c.basic_recover(requeue=True))

    def _close(self, step: Step) -> Outcome:
        channel = self._channels.pop(step["channel"], None)
        self._prefetch.pop(step["channel"], None)
        if channel is not None and channel.is_open:
            channel.close()
        return "ok"

    def _disconnect(self, step: Step) -> Outcome:
        self._connection(step["on"]).close()
        self._forget(step["on"])
        return "ok"

    def _forget(self, connection: str) -> None:
        del self._connections[connection]
        for name in [name for name in self._channels if _connection_of(name) == connection]:
            del self._channels[name]

    # Waiting ----------------------------------------------------------------------------------

    def _wait_ready(self, step: Step) -> Outcome:
        wanted = step.get("count", 0)

        def is_ready() -> bool:
            found = self._count({"name": step["queue"]})
            return bool(found.get("ready") == wanted)

        wait_for(str(step), is_ready)
        return wanted

    def _wait_cancelled(self, step: Step) -> Outcome:
        consumer = self._consumers[step["tag"]]

        def is_cancelled() -> bool:
            self._poll()
            return consumer.cancelled

        wait_for(str(step), is_cancelled)
        return "ok"

    def _wait_gone(self, step: Step) -> Outcome:
        probe = {"key": step["queue"], "body": "probe", "mandatory": True}
        wait_for(str(step), lambda: self._publish(probe) not in ("confirmed", "nacked"))
        return "ok"


def _connection_of(channel: str) -> str:
    return channel.split(":")[0] if ":" in channel else "1"


def _binding(step: Step, destination: str, source: str) -> tuple[str, str, str, dict[str, Any]]:
    headers = {name: from_json(value) for name, value in step.get("headers", {}).items()}
    return step[destination], step.get(source, ""), step.get("key", ""), headers
