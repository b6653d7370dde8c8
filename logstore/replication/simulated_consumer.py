"""A consumer of a simulation: it reads all partitions from their leaders, up to the high watermark.

Under each new leader epoch it asks the leader whether what it has read is still there (KIP-320). If
the log was cut in front of its position, it goes on at the cut, and says so.
"""

from __future__ import annotations

from typing import Final

from logstore.replication.broker import Broker
from logstore.replication.client import LeaderFinder
from logstore.replication.fetching import PARTITION_BYTES
from logstore.replication.history import ConsumerReset, Delivered
from logstore.replication.kernel import Simulation
from logstore.replication.messages import (
    OFFSET_OUT_OF_RANGE,
    REQUEST_BYTES,
    EpochRequest,
    EpochResponse,
    FetchedPartition,
    FetchPartition,
    FetchRequest,
    FetchResponse,
    LeaderHint,
)
from logstore.replication.network import Network
from logstore.replication.settings import WorkloadSettings
from logstore.segments.batch import iter_batches
from logstore.segments.errors import FormatError

__all__ = ["SimulatedConsumer"]

_MAX_BYTES: Final = 1 << 20
_BACKOFF_US: Final = 100_000
_PATIENCE_US: Final = 1_000_000
"""How much longer than a fetch may wait at the leader one waits for its answer."""


class _Place:
    """Where a consumer is in a partition."""

    __slots__ = ("hint", "last_epoch", "offset", "quiet_until_us", "valid")

    def __init__(self) -> None:
        self.offset = 0
        self.last_epoch = -1
        """Of the last batch that was read."""
        self.hint: LeaderHint | None = None
        """Who leads, as of when this was last looked at."""
        self.valid = False
        """Whether what was read is known to be in this leader's log."""
        self.quiet_until_us = 0


class SimulatedConsumer:
    """One consumer, without a group: it keeps its offsets itself."""

    def __init__(
        self,
        simulation: Simulation,
        network: Network,
        brokers: dict[int, Broker],
        node: str,
        *,
        partitions: list[str],
        settings: WorkloadSettings,
    ) -> None:
        self.node = node
        self._simulation = simulation
        self._history = simulation.history
        self._network = network
        self._brokers = brokers
        self._settings = settings
        self._places = {name: _Place() for name in partitions}
        self._correlation = 0
        self._under_way: dict[int, int] = {}
        """The number of the fetch that a leader has to answer, by leader."""
        self._finder = LeaderFinder(
            simulation,
            network,
            brokers,
            node,
            max_age_us=settings.metadata_max_age_ms * 1000,
            changed=self._look_around,
        )

    def position(self, partition: str) -> int:
        """The offset that it reads next."""
        return self._places[partition].offset

    def _look_around(self) -> None:
        """Take in who leads now, and fetch from all of them."""
        for name, place in self._places.items():
            hint = self._finder.leader(name)
            if hint is None or hint == place.hint:
                continue
            place.hint = hint
            place.valid = place.last_epoch < 0
            if not place.valid:
                self._validate(name, place)
        self._fetch_all()

    # Validating -------------------------------------------------------------------------------

    def _validate(self, name: str, place: _Place) -> None:
        hint = place.hint
        if hint is None or place.valid or self._places[name].hint is not hint:
            return
        request = EpochRequest(self, name, hint.leader_epoch, place.last_epoch)
        on_epoch = self._brokers[hint.leader].on_epoch
        self._network.send(self.node, hint.leader, REQUEST_BYTES, on_epoch, request)
        self._simulation.after(_PATIENCE_US, self._validate_again, name, place, hint)

    def _validate_again(self, name: str, place: _Place, hint: LeaderHint) -> None:
        if place.hint is hint and not place.valid:
            self._finder.refresh()
            self._validate(name, place)

    def on_epoch_end(self, response: EpochResponse) -> None:
        """A leader has said where an epoch ends."""
        place = self._places[response.partition]
        hint = place.hint
        if hint is None or place.valid or response.leader_epoch != hint.leader_epoch:
            return
        if response.error is not None:
            self._finder.refresh()
            return
        if response.asked != place.last_epoch:
            return
        place.valid = True
        if response.end_offset < place.offset:
            self._reset(response.partition, place, max(response.end_offset, 0))
            place.last_epoch = response.epoch
        self._fetch_all()

    def _reset(self, name: str, place: _Place, to: int) -> None:
        now_us = self._simulation.now_us
        self._history.emit(ConsumerReset(now_us, self.node, name, place.offset, to))
        place.offset = to

    # Fetching ---------------------------------------------------------------------------------

    def _fetch_all(self) -> None:
        """Fetch from every leader from which no answer is awaited."""
        now_us = self._simulation.now_us
        wanted: dict[int, list[FetchPartition]] = {}
        for name, place in self._places.items():
            hint = place.hint
            if hint is None or not place.valid or place.quiet_until_us > now_us:
                continue
            if hint.leader not in self._under_way:
                part = FetchPartition(name, hint.leader_epoch, place.offset)
                wanted.setdefault(hint.leader, []).append(part)
        for leader, partitions in wanted.items():
            self._fetch(leader, tuple(partitions))

    def _fetch(self, leader: int, partitions: tuple[FetchPartition, ...]) -> None:
        self._correlation = correlation = self._correlation + 1
        self._under_way[leader] = correlation
        wait_us = self._settings.fetch_wait_max_ms * 1000
        request = FetchRequest(correlation, self, -1, wait_us, _MAX_BYTES, partitions)
        size = REQUEST_BYTES + PARTITION_BYTES * len(partitions)
        on_fetch = self._brokers[leader].on_fetch
        self._network.send(self.node, leader, size, on_fetch, request)
        self._simulation.after(wait_us + _PATIENCE_US, self._give_up, leader, correlation)

    def _give_up(self, leader: int, correlation: int) -> None:
        if self._under_way.get(leader) == correlation:
            del self._under_way[leader]
            self._finder.refresh()
            self._fetch_all()

    def on_disconnected(self, correlation: int) -> None:
        """Nobody listened: ask who leads now, and go on when that is known, or after a while."""
        self._finder.refresh()
        for leader, number in list(self._under_way.items()):
            if number == correlation:
                self._simulation.after(_BACKOFF_US, self._give_up, leader, correlation)

    def on_fetched(self, response: FetchResponse) -> None:
        """A leader has answered."""
        if self._under_way.get(response.leader) != response.correlation:
            return
        del self._under_way[response.leader]
        for answer in response.partitions:
            place = self._places[answer.partition]
            hint = place.hint
            if hint is None or hint.leader_epoch != answer.leader_epoch or not place.valid:
                continue
            if answer.offset != place.offset:
                continue
            if answer.error == OFFSET_OUT_OF_RANGE:
                self._reset(answer.partition, place, answer.end)
            elif answer.error is not None:
                self._pause(place)
                self._finder.refresh()
            elif answer.data:
                self._take(place, answer)
        self._fetch_all()

    def _pause(self, place: _Place) -> None:
        place.quiet_until_us = self._simulation.now_us + _BACKOFF_US
        self._simulation.after(_BACKOFF_US, self._fetch_all)

    def _take(self, place: _Place, answer: FetchedPartition) -> None:
        """Read what has come; a damaged batch is where reading ends."""
        ids: list[str] = []
        base, offset = place.offset, place.offset
        try:
            for batch in iter_batches(answer.data):
                batch.check_crc()
                ids += [
                    (value or b"").partition(b" ")[0].decode()
                    for at, _, _, value, _ in batch.records(row_type=tuple)
                    if at >= offset
                ]
                offset = max(offset, batch.header.next_offset)
                place.last_epoch = batch.header.leader_epoch
        except FormatError:
            self._pause(place)
        if not ids:
            return
        place.offset = offset
        self._history.emit(
            Delivered(
                self._simulation.now_us,
                self.node,
                answer.partition,
                base,
                tuple(ids),
                answer.leader_epoch,
                answer.high_watermark,
            )
        )
