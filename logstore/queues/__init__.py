"""Work queues: RabbitMQ's model on the log.

Exchanges route messages to queues by bindings; a queue is a log of its own and a ledger of what
was delivered and acknowledged. ``definitions``, ``properties`` and ``field_table`` say what all of
it is made of.
"""

from __future__ import annotations

from logstore.queues.definitions import QueueArguments, QueueDefinition
from logstore.queues.properties import Envelope, Properties

__all__ = ["Envelope", "Properties", "QueueArguments", "QueueDefinition"]
