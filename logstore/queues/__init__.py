"""Work queues: RabbitMQ's model on the log.

Exchanges route messages to queues by bindings; a queue is a log of its own and a ledger of what
was delivered and acknowledged. ``Store.exchange``, ``Store.queue`` and ``Store.queues`` are the
face of it. ``routing``, ``dead_letter`` and ``ledger`` decide, purely; ``catalogue`` keeps what is
declared, ``publishing`` appends, ``channel`` and ``consuming`` deliver.
"""

from __future__ import annotations

from logstore.queues.broker import Broker
from logstore.queues.channel import Channel
from logstore.queues.definitions import (
    BindingDefinition,
    ExchangeDefinition,
    QueueArguments,
    QueueDefinition,
)
from logstore.queues.exchange import Exchange
from logstore.queues.message import Message
from logstore.queues.properties import Envelope, Properties
from logstore.queues.publisher import Publisher
from logstore.queues.publishing import Confirm, Confirms, Outgoing, Returned
from logstore.queues.queue import QueueCounts
from logstore.queues.queue_face import Queue

__all__ = [
    "BindingDefinition",
    "Broker",
    "Channel",
    "Confirm",
    "Confirms",
    "Envelope",
    "Exchange",
    "ExchangeDefinition",
    "Message",
    "Outgoing",
    "Properties",
    "Publisher",
    "Queue",
    "QueueArguments",
    "QueueCounts",
    "QueueDefinition",
    "Returned",
]
