"""A replicated log under a virtual clock: what a replication factor buys, and what it costs.

``kernel`` is time and chance, ``history`` what happened. Everything else is told both, and asks
nobody else: no thread, no clock of the machine, no order that differs between two runs. ``cluster``
has brokers, whose replicas are real logs, under Kafka's protocol.
"""
