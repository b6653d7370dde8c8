"""The network of a simulation: who hears what was sent, and when.

A message waits until what its sender sent before it is out (bandwidth), is on its way for as long
as the link takes (latency and jitter), and arrives behind what was sent before it on the same
link, as over one connection. The seed decides what is lost, arrives twice or is overtaken. Links
can be cut, in one direction or both; what is on its way already arrives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from logstore.errors import InvalidInputError
from logstore.replication.kernel import Simulation
from logstore.replication.settings import LinkSettings, NetworkSettings, region_of

__all__ = ["Network", "Node"]

Node = int | str
"""A broker's number, ``controller``, or a client's name."""

_MILLION = 1_000_000


class Network:
    """All links between the nodes of a cluster.

    ``places`` tells the rack of each node; :meth:`place` adds those that come later.
    """

    def __init__(
        self, simulation: Simulation, settings: NetworkSettings, places: Mapping[Node, str]
    ) -> None:
        self.settings = settings
        self.messages = 0
        """How many were sent, lost ones included, copies not."""
        self.lost = 0
        """How many of them did not arrive."""
        self.network_bytes = 0
        """Sent from one node to another; a lost message was sent, too."""
        self.between_racks_bytes = 0
        """Those of them that left a rack: what clouds charge for."""
        self._simulation = simulation
        self._at = simulation.at
        self._random = simulation.rng("network").random
        self._places = dict(places)
        self._outlets: dict[Node, _Outlet] = {}
        """What each node sends through."""
        self._links: dict[tuple[Node, Node], _Link] = {}
        """Made when first used or touched by a fault."""
        self._disturbed = [0, 0, 0]
        """What faults add to the loss, duplication and reordering of every link."""

    @property
    def nodes(self) -> list[Node]:
        """All nodes, in the order of their coming."""
        return list(self._places)

    def place(self, node: Node, rack: str) -> None:
        """Add a node."""
        self._places[node] = rack

    def rack_of(self, node: Node) -> str:
        """Where a node stands."""
        return self._places[node]

    # Messages ---------------------------------------------------------------------------------

    def send(
        self,
        source: Node,
        target: Node,
        size_bytes: int,
        deliver: Callable[..., object],
        *args: Any,
    ) -> None:
        """Send a message of that size: ``deliver(*args)`` is called when it arrives.

        That is later, or never, or twice. Whether the target still lives then is for ``deliver`` to
        find out.
        """
        link = self._links.get((source, target)) or self._link(source, target)
        self.messages += 1
        self.network_bytes += size_bytes
        if link.between_racks:
            self.between_racks_bytes += size_bytes
        out_us = self._simulation.now_us
        for outlet in link.outlets:  # what is sent through one waits for what was sent before
            if out_us > outlet.free_us:
                outlet.free_us, outlet.rest = out_us, 0
            taken_us, outlet.rest = divmod(size_bytes * _MILLION + outlet.rest, outlet.bytes_per_s)
            out_us = outlet.free_us = outlet.free_us + taken_us
        if link.cuts:
            self.lost += 1
            return
        latency_us = link.latency_us
        if link.jitter_us:
            latency_us += int(self._random() * (link.jitter_us + 1))
        arrival_us = out_us + latency_us
        if link.unreliable:
            self._send_unreliably(link, arrival_us, deliver, args)
            return
        # Nothing overtakes: what was sent later arrives later, if only by its number in the heap.
        if arrival_us < link.last_arrival_us:
            arrival_us = link.last_arrival_us
        link.last_arrival_us = arrival_us
        self._at(arrival_us, deliver, *args)

    def _send_unreliably(
        self, link: _Link, arrival_us: int, deliver: Callable[..., object], args: tuple[Any, ...]
    ) -> None:
        at, late_us = self._simulation.at, self.settings.reorder_us
        if self._happens(link.loss_ppm):
            self.lost += 1
            return
        if self._happens(link.duplicate_ppm):
            at(arrival_us + int(self._random() * (late_us + 1)), deliver, *args)
        if self._happens(link.reorder_ppm):
            # It holds up nobody: what is sent after it may arrive first.
            at(arrival_us + int(self._random() * (late_us + 1)), deliver, *args)
            return
        link.last_arrival_us = max(link.last_arrival_us, arrival_us)
        at(link.last_arrival_us, deliver, *args)

    def _happens(self, ppm: int) -> bool:
        return ppm > 0 and int(self._random() * _MILLION) < ppm

    # Faults -----------------------------------------------------------------------------------

    def cut(self, source: Node, target: Node) -> None:
        """Lose what the one sends to the other, until it was healed as often as it was cut."""
        self._link(source, target).cuts += 1

    def heal(self, source: Node, target: Node) -> None:
        """Take one cut back; raises InvalidInputError where there is none."""
        link = self._link(source, target)
        if link.cuts == 0:
            raise InvalidInputError(f"the link from {source} to {target} is not cut")
        link.cuts -= 1

    def is_cut(self, source: Node, target: Node) -> bool:
        """Whether what the one sends to the other is lost."""
        link = self._links.get((source, target))
        return link is not None and link.cuts > 0

    def slow(self, nodes: Iterable[Node], factor: int) -> None:
        """Let messages from and to the nodes take so many times longer; a factor of 1 ends it."""
        slowed = list(nodes)
        for node in slowed:
            for other in self._places:
                for link in (self._link(node, other), self._link(other, node)):
                    link.slow(factor)

    def disturb(self, loss_ppm: int, duplicate_ppm: int, reorder_ppm: int) -> None:
        """Add to how many messages are lost, come twice, or are overtaken, on every link.

        Negative numbers take back what was added.
        """
        change = (loss_ppm, duplicate_ppm, reorder_ppm)
        self._disturbed = [old + new for old, new in zip(self._disturbed, change, strict=True)]
        for link in self._links.values():
            link.disturb(*self._disturbed)

    # Links ------------------------------------------------------------------------------------

    def _link(self, source: Node, target: Node) -> _Link:
        link = self._links.get((source, target))
        if link is None:
            link = self._links[source, target] = self._make(source, target)
            link.disturb(*self._disturbed)
        return link

    def _make(self, source: Node, target: Node) -> _Link:
        here, there = self._places[source], self._places[target]
        told = self._told(source, target)
        settings = self.settings
        if here == there:
            latency_us = settings.same_rack_us
        elif region_of(here) == region_of(there):
            latency_us = settings.other_rack_us
        else:
            latency_us = settings.other_region_us
        if source not in self._outlets:
            self._outlets[source] = _Outlet(settings.bandwidth_bytes_per_s)
        outlets = [self._outlets[source]]
        if (bandwidth := told.pop("bandwidth_bytes_per_s", -1)) >= 0:
            outlets.append(_Outlet(bandwidth))  # its own, behind the machine's
        return _Link(
            tuple(outlet for outlet in outlets if outlet.bytes_per_s),
            told.pop("latency_us", latency_us),
            settings.jitter_percent,
            (
                told.pop("loss_ppm", settings.loss_ppm),
                told.pop("duplicate_ppm", settings.duplicate_ppm),
                told.pop("reorder_ppm", settings.reorder_ppm),
            ),
            between_racks=here != there,
        )

    def _told(self, source: Node, target: Node) -> dict[str, int]:
        """What the table of links says about this one; of two lines, the later one counts."""
        ends = ((source, target), (self._places[source], self._places[target]))
        told: dict[str, int] = {}
        for line in self.settings.links:
            if _applies(line, ends):
                for key in _TOLD:
                    if (value := getattr(line, key)) >= 0:
                        told[key] = value
        return told


_TOLD = ("latency_us", "bandwidth_bytes_per_s", "loss_ppm", "duplicate_ppm", "reorder_ppm")


def _applies(line: LinkSettings, ends: tuple[tuple[Node, Node], ...]) -> bool:
    """Whether a line of the table speaks of a link, given as its nodes and as their racks."""
    (source, target), (here, there) = ends
    way = line.source in (source, here) and line.target in (target, there)
    back = line.source in (target, there) and line.target in (source, here)
    return way or (line.both_ways and back)


class _Outlet:
    """What can send so many bytes a second, one message after the other."""

    __slots__ = ("bytes_per_s", "free_us", "rest")

    def __init__(self, bytes_per_s: int) -> None:
        self.bytes_per_s = bytes_per_s
        self.free_us = 0
        """When all that was given to it so far is out."""
        self.rest = 0
        """What of a microsecond the last messages took: small ones must not be free."""


class _Link:
    """The way from one node to another."""

    __slots__ = (
        "between_racks",
        "cuts",
        "duplicate_ppm",
        "jitter_us",
        "last_arrival_us",
        "latency_us",
        "loss_ppm",
        "outlets",
        "reorder_ppm",
        "unreliable",
        "usual",
    )

    def __init__(
        self,
        outlets: tuple[_Outlet, ...],
        latency_us: int,
        jitter_percent: int,
        ppm: tuple[int, int, int],
        *,
        between_racks: bool,
    ) -> None:
        self.outlets = outlets
        """What a message goes through, one after the other; none where bandwidth has no bound."""
        self.latency_us = latency_us
        self.jitter_us = latency_us * jitter_percent // 100
        self.between_racks = between_racks
        self.cuts = 0
        """By how many faults the link is cut."""
        self.last_arrival_us = 0
        """When the last message arrives that is not to be overtaken."""
        self.usual = (latency_us, self.jitter_us, ppm)
        """What is so without a fault."""
        self.disturb(0, 0, 0)

    def slow(self, factor: int) -> None:
        self.latency_us = self.usual[0] * factor
        self.jitter_us = self.usual[1] * factor

    def disturb(self, loss_ppm: int, duplicate_ppm: int, reorder_ppm: int) -> None:
        usual = self.usual[2]
        self.loss_ppm = usual[0] + loss_ppm
        self.duplicate_ppm = usual[1] + duplicate_ppm
        self.reorder_ppm = usual[2] + reorder_ppm
        self.unreliable = bool(self.loss_ppm or self.duplicate_ppm or self.reorder_ppm)
