"""A cluster in a process: brokers, clients, a controller, disks and a network, under one seed.

It is set up from a scenario, run, and looked at by whoever subscribed to its history. What goes
wrong in it is done to it from outside, by the methods under *Faults*.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from typing import Final

from logstore.replication import placement
from logstore.replication.broker import Broker
from logstore.replication.controller import CONTROLLER, SingleController
from logstore.replication.disk import Disk
from logstore.replication.faults import Faults
from logstore.replication.history import Crashed, DiskLost, Started
from logstore.replication.kernel import Simulation
from logstore.replication.leadership import NO_LEADER
from logstore.replication.mirrored_queue import QUEUE_PREFIX
from logstore.replication.network import Network, Node
from logstore.replication.queue_consumer import QueueConsumer
from logstore.replication.replica import Replica
from logstore.replication.scenario import Scenario
from logstore.replication.settings import WorkloadSettings
from logstore.replication.simulated_consumer import SimulatedConsumer
from logstore.replication.simulated_producer import SimulatedProducer
from logstore.segments.memory_files import CrashMode

__all__ = ["TOPIC", "Cluster"]

_WORK_ON_US: Final = 10_000_000
"""How long the consumers of queues go on after the end."""

TOPIC = "orders"
"""The topic of every cluster."""


class Cluster:
    """The cluster of a scenario, with its clients. It lives in ``simulation``."""

    def __init__(
        self,
        simulation: Simulation,
        scenario: Scenario,
        *,
        bugs: frozenset[str] = frozenset(),
    ) -> None:
        """``bugs`` are faults of the protocol that are planted, to test the checkers."""
        self.simulation = simulation
        self.scenario = scenario
        self.bugs = bugs
        settings = scenario.cluster
        self.partitions = [f"{TOPIC}-{number}" for number in range(settings.partitions)]
        self.queues = [f"{QUEUE_PREFIX}{number}" for number in range(scenario.queues.queues)]
        """Mirrored queues: partitions, too."""
        nodes = list(range(settings.brokers))
        places: dict[Node, str] = {node: settings.rack_of(node) for node in nodes}
        places[CONTROLLER] = settings.rack_of(0)
        self.network = Network(simulation, scenario.network, places)
        self.controller = SingleController(simulation, self.network, settings, bugs=bugs)
        self.disks: dict[int, Disk] = {}
        self.brokers: dict[int, Broker] = {}
        """The process of each broker: the last one, if it is down."""
        self.producers: list[SimulatedProducer] = []
        self.consumers: list[SimulatedConsumer] = []
        self.queue_consumers: list[QueueConsumer] = []
        self._incarnations: dict[int, int] = {}
        """How often each broker was started."""
        self._again: list[int] = []
        """Brokers that are stopping, and are to start as soon as they have."""
        for node in nodes:
            self._add(node)
        self.controller.create(
            placement.assign(
                [*self.partitions, *self.queues],
                settings.replication_factor,
                nodes,
                self._racks(nodes),
            )
        )
        self._add_clients()
        self._add_queue_clients()

    def _racks(self, nodes: list[int]) -> dict[int, str]:
        settings = self.scenario.cluster
        return {node: settings.rack_of(node) if settings.rack_aware else "" for node in nodes}

    def _add(self, node: int) -> None:
        self.disks[node] = Disk(self.simulation, self.scenario.disk, node)
        self._incarnations[node] = 0
        self._start(node)

    def _placed(self, kind: str, count: int) -> Iterator[tuple[int, str]]:
        """Clients by number and name, each one on the network before it is made."""
        for number in range(count):
            node = f"{kind}{number}"
            self.network.place(node, self.scenario.cluster.rack_of(number))
            yield number, node

    def _add_clients(self) -> None:
        settings, workload = self.scenario.cluster, self.scenario.workload
        for number, node in self._placed("p", workload.producers):
            producer = SimulatedProducer(
                self.simulation,
                self.network,
                self.brokers,
                node,
                producer_id=number,
                partitions=self.partitions,
                acks=settings.acks,
                settings=workload,
            )
            self.producers.append(producer)
        for _, node in self._placed("c", workload.consumers):
            consumer = SimulatedConsumer(
                self.simulation,
                self.network,
                self.brokers,
                node,
                partitions=self.partitions,
                settings=workload,
            )
            self.consumers.append(consumer)

    def _add_queue_clients(self) -> None:
        queues = self.scenario.queues
        if not self.queues:
            return
        publishing = WorkloadSettings(
            records_per_second=queues.messages_per_second * len(self.queues),
            record_bytes=queues.message_bytes,
            batch_records=1,
            linger_ms=0,
            request_timeout_ms=self.scenario.workload.request_timeout_ms,
        )
        for number, node in self._placed("q", queues.publishers):
            publisher = SimulatedProducer(
                self.simulation,
                self.network,
                self.brokers,
                node,
                producer_id=1000 + number,
                partitions=self.queues,
                acks="all",
                settings=publishing,
            )
            self.producers.append(publisher)
        consumed = self.queues * queues.consumers
        for number, node in self._placed("k", len(consumed)):
            consumer = QueueConsumer(
                self.simulation,
                self.network,
                self.brokers,
                node,
                queue=consumed[number],
                settings=queues,
            )
            self.queue_consumers.append(consumer)

    # Running ----------------------------------------------------------------------------------

    def run(self) -> None:
        """Let the scenario's time pass, with the faults that it has; at its end all is healed."""
        Faults(self).schedule()
        self.simulation.run_until(self.scenario.duration_ms * 1000)

    def come_to_rest(self, within_ms: int = 300_000) -> bool:
        """Heal what is not, and let the producers stop and settle what is under way, until
        everything is at all replicas; and say whether it came to that within the time. The
        consumers of queues go on for a while; what they give back could keep them busy for ever.
        """
        self.heal()
        for producer in self.producers:
            producer.stop()
        for consumer in self.queue_consumers:
            self.simulation.after(_WORK_ON_US, consumer.stop)
        end_us = self.simulation.now_us + within_ms * 1000
        while self.simulation.now_us < end_us:
            self.simulation.run_until(min(self.simulation.now_us + 500_000, end_us))
            self._replace_broken()
            if self.is_at_rest():
                return True
        return False

    def heal(self) -> None:
        """Let every broker run."""
        for node in self.brokers:
            self.resume(node)
            self.start(node)

    def _replace_broken(self) -> None:
        """What a person does who finds a log that cannot be opened, and knows that others are."""
        for node, broker in list(self.brokers.items()):
            for name in broker.broken:
                if self.leader(name) not in (node, NO_LEADER):
                    self.recreate(node, name)
                    break

    def is_at_rest(self) -> bool:
        """Whether nothing is under way: all producers have their answers, every replica has all
        that its leader has, and the consumers have read it."""
        if any(producer.unsettled for producer in self.producers):
            return False
        return all(self._rests(name) for name in (*self.partitions, *self.queues))

    def _rests(self, name: str) -> bool:
        state = self.controller.partitions[name]
        if state.leader == NO_LEADER or state.adding or state.removing:
            return False
        replicas = self.replicas(name)
        if set(replicas) != set(state.replicas) or set(state.isr) != set(state.replicas):
            return False
        end = replicas[state.leader].end
        return all(
            (replica.end, replica.high_watermark) == (end, end) for replica in replicas.values()
        ) and (
            name in self.queues
            or all(consumer.position(name) == end for consumer in self.consumers)
        )

    def replicas(self, name: str) -> dict[int, Replica]:
        """The replicas of a partition at the brokers that run, by broker."""
        return {
            node: broker.replicas[name]
            for node, broker in self.brokers.items()
            if not broker.dead and name in broker.replicas
        }

    def leader(self, name: str) -> int:
        """Who leads a partition, as the controller has decided; -1: nobody."""
        return self.controller.partitions[name].leader

    def is_up(self, node: int) -> bool:
        """Whether a broker's process runs, or stands still, and is not about to stop."""
        broker = self.brokers[node]
        return not broker.dead and not broker.is_stopping

    # Faults -----------------------------------------------------------------------------------

    def crash(self, node: int, mode: CrashMode | None = None) -> None:
        """End a broker's process, if it runs; without a mode it is a power cut, and the seed
        decides what becomes of what was not synced."""
        broker = self.brokers[node]
        if broker.dead:
            return
        broker.die()
        if node in self._again:
            self._again.remove(node)
        mode = self.disks[node].crash(mode)
        self.simulation.history.emit(Crashed(self.simulation.now_us, node, mode.value))

    def start(self, node: int) -> None:
        """Start a broker, unless it runs: it finds what its disk has. One that is stopping is
        started when it has."""
        broker = self.brokers[node]
        if broker.dead:
            self._start(node)
        elif broker.is_stopping and node not in self._again:
            self._again.append(node)

    def _start(self, node: int) -> None:
        self._incarnations[node] += 1
        broker = self.brokers[node] = Broker(
            self.simulation,
            self.network,
            self.scenario.cluster,
            node,
            disk=self.disks[node],
            controller=self.controller,
            peers=self.brokers,
            failed=self._storage_failed,
            bugs=self.bugs,
            lease_ms=self.scenario.queues.lease_ms,
        )
        now_us = self.simulation.now_us
        self.simulation.history.emit(Started(now_us, node, self._incarnations[node]))
        broker.enter(broker.start)

    def _storage_failed(self, broker: Broker) -> None:
        self.crash(broker.node, CrashMode.KILL)

    def stop(self, node: int) -> None:
        """Stop a broker in good order, if it runs: first others lead what it leads, then its logs
        are closed. That takes a while, and needs the controller."""
        broker = self.brokers[node]
        if not broker.dead:
            broker.enter(broker.stop, lambda: self._stopped(node))

    def _stopped(self, node: int) -> None:
        self.simulation.history.emit(Crashed(self.simulation.now_us, node, "stop"))
        if node in self._again:
            self._again.remove(node)
            self._start(node)

    def pause(self, node: int) -> None:
        """Let a broker's process stand still, as in a long garbage collection."""
        self.brokers[node].pause()

    def resume(self, node: int) -> None:
        """Let it go on."""
        self.brokers[node].resume()

    def lose_disk(self, node: int) -> None:
        """End a broker's process, and put an empty disk in the place of its own."""
        self.crash(node, CrashMode.LOSE)
        self.disks[node].lose()
        self.simulation.history.emit(DiskLost(self.simulation.now_us, node))

    def recreate(self, node: int, name: str) -> None:
        """Start a broker anew without a partition that it could not open: what an operator does who
        knows that other replicas have it."""
        self.crash(node, CrashMode.KILL)
        files = self.disks[node].files
        for file in files.names(name):
            files.remove(posixpath.join(name, file))
        files.sync_directory(name)
        files.remove_directory(name)
        self.start(node)

    def add_broker(self) -> int:
        """Add a broker, move about as many replicas to it as the others have, and return it."""
        node = max(self.brokers) + 1
        self.network.place(node, self.scenario.cluster.rack_of(node))
        self._add(node)
        nodes = list(self.brokers)
        self.controller.rebalance(nodes, self._racks(nodes))
        return node

    # Looking ----------------------------------------------------------------------------------

    def keep(self, directory: str | os.PathLike[str]) -> None:
        """Close the logs of the brokers that run, and write every broker's disk into a folder
        ``broker-<number>`` of a directory. The cluster has come to its end then."""
        for node, broker in self.brokers.items():
            if not broker.dead:
                broker.close()
            self.disks[node].write_out(os.path.join(os.fspath(directory), f"broker-{node}"))
