"""A broker for one consumer: just enough of Kafka's protocol to serve our partitions.

It speaks four requests, each in one version (source: Kafka protocol guide): ApiVersions, Metadata,
ListOffsets and Fetch, and answers a question for a group's coordinator by saying that there is
none. The batches of a Fetch are the raw bytes of `PartitionLog.read`. Everything runs in one
thread, on an asyncio loop, and on the loopback interface alone.
"""

from __future__ import annotations

import asyncio
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from logstore.errors import OffsetOutOfRangeError
from logstore.log import PartitionLog

HOST = "127.0.0.1"
NODE_ID = 1

PRODUCE = 0
FETCH = 1
LIST_OFFSETS = 2
METADATA = 3
FIND_COORDINATOR = 10
API_VERSIONS = 18

VERSIONS = {
    PRODUCE: (7, 7),
    FETCH: (11, 11),
    LIST_OFFSETS: (5, 5),
    METADATA: (7, 7),
    FIND_COORDINATOR: (2, 2),
    API_VERSIONS: (0, 3),
}
"""The lowest and the highest version of each request that is understood.

Produce is not, but from its absence librdkafka would conclude that we know no batches of format 2.
"""

NO_ERROR = 0
OFFSET_OUT_OF_RANGE = 1
UNKNOWN_TOPIC_OR_PARTITION = 3
COORDINATOR_NOT_AVAILABLE = 15
UNSUPPORTED_VERSION = 35

EARLIEST = -2
LATEST = -1

MAX_REQUEST_BYTES = 1 << 20
LONGEST_WAIT_S = 0.02


class _Reader:
    """The fields of a request, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def _number(self, format: str) -> int:
        (number,) = struct.unpack_from(format, self._data, self._position)
        self._position += struct.calcsize(format)
        return int(number)

    def int8(self) -> int:
        return self._number(">b")

    def int16(self) -> int:
        return self._number(">h")

    def int32(self) -> int:
        return self._number(">i")

    def int64(self) -> int:
        return self._number(">q")

    def string(self) -> str | None:
        length = self.int16()
        if length < 0:
            return None
        start, self._position = self._position, self._position + length
        return self._data[start : self._position].decode()

    def array(self, read: Callable[[], Any]) -> list[Any] | None:
        count = self.int32()
        return None if count < 0 else [read() for _ in range(count)]


def _int8(number: int) -> bytes:
    return struct.pack(">b", number)


def _int16(number: int) -> bytes:
    return struct.pack(">h", number)


def _int32(number: int) -> bytes:
    return struct.pack(">i", number)


def _int64(number: int) -> bytes:
    return struct.pack(">q", number)


def _string(text: str | None) -> bytes:
    if text is None:
        return _int16(-1)
    data = text.encode()
    return _int16(len(data)) + data


def _array(items: Sequence[bytes]) -> bytes:
    return _int32(len(items)) + b"".join(items)


_NULL_ARRAY = _int32(-1)
_NO_THROTTLE = _int32(0)


class FetchServer:
    """Serves each log as partition 0 of the topic of its name, while it is entered."""

    def __init__(self, logs: Mapping[str, PartitionLog]) -> None:
        self._logs = logs
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="fetch-server", daemon=True)
        self._started = threading.Event()
        self._stop: asyncio.Event
        self._port = 0
        self.errors: list[BaseException] = []
        """What went wrong in here; a test looks at it when it is done."""

    @property
    def address(self) -> str:
        """Host and port, as clients want them."""
        return f"{HOST}:{self._port}"

    def __enter__(self) -> FetchServer:
        self._thread.start()
        if not self._started.wait(timeout=10) or self.errors:
            raise RuntimeError(f"the server did not start: {self.errors}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(timeout=10)
        if self._thread.is_alive():
            raise RuntimeError("the server did not stop")

    # The loop ---------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:  # noqa: BLE001 - shown by the test that waits for us
            self.errors.append(error)
        finally:
            self._started.set()
            self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        connections: set[asyncio.Task[None]] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            connections.add(task)
            try:
                await self._converse(reader, writer)
            finally:
                connections.discard(task)

        server = await asyncio.start_server(connected, HOST, 0)
        self._port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stop.wait()
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer a client's requests, one after the other, until it hangs up."""
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(4))
                if size > MAX_REQUEST_BYTES:
                    raise ValueError(f"a request of {size} bytes")
                answer = await self._answer(await reader.readexactly(size))
                writer.write(_int32(len(answer)) + answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        except Exception as error:  # noqa: BLE001 - shown by the test
            self.errors.append(error)
        finally:
            writer.close()

    async def _answer(self, data: bytes) -> bytes:
        request = _Reader(data)
        key, version, correlation = request.int16(), request.int16(), request.int32()
        request.string()  # the client's name
        header = _int32(correlation)
        if key == API_VERSIONS:
            return header + self._api_versions(version)
        lowest, highest = VERSIONS[key]
        if not lowest <= version <= highest:
            raise ValueError(f"request {key} in version {version}, which was not offered")
        if key == METADATA:
            return header + self._metadata(request)
        if key == LIST_OFFSETS:
            return header + self._list_offsets(request)
        if key == FIND_COORDINATOR:
            return header + self._find_coordinator()
        if key == FETCH:
            return header + await self._fetch(request)
        raise ValueError(f"request {key}, which consumers do not send")

    # The requests -----------------------------------------------------------------------------

    @staticmethod
    def _api_versions(version: int) -> bytes:
        if version > VERSIONS[API_VERSIONS][1]:
            # By the rules this answer has the form of version 0, whatever was asked for.
            return _int16(UNSUPPORTED_VERSION) + _array([])
        ranges = [
            _int16(key) + _int16(lowest) + _int16(highest)
            for key, (lowest, highest) in VERSIONS.items()
        ]
        if version < 3:
            throttle = _NO_THROTTLE if version else b""
            return _int16(NO_ERROR) + _array(ranges) + throttle
        no_tags = b"\0"
        compact = bytes([len(ranges) + 1]) + b"".join(each + no_tags for each in ranges)
        return _int16(NO_ERROR) + compact + _NO_THROTTLE + no_tags

    def _metadata(self, request: _Reader) -> bytes:
        names = request.array(request.string)
        broker = _int32(NODE_ID) + _string(HOST) + _int32(self._port) + _string(None)
        topics = []
        for name in sorted(self._logs) if names is None else names:
            known = name in self._logs
            partition = (
                _int16(NO_ERROR)
                + _int32(0)  # partition
                + _int32(NODE_ID)  # leader
                + _int32(0)  # leader epoch
                + _array([_int32(NODE_ID)])  # replicas
                + _array([_int32(NODE_ID)])  # in-sync replicas
                + _array([])  # offline replicas
            )
            topics.append(
                _int16(NO_ERROR if known else UNKNOWN_TOPIC_OR_PARTITION)
                + _string(name)
                + _int8(0)  # not internal
                + _array([partition] if known else [])
            )
        return _NO_THROTTLE + _array([broker]) + _string(None) + _int32(NODE_ID) + _array(topics)

    @staticmethod
    def _find_coordinator() -> bytes:
        nobody = _int32(-1) + _string("") + _int32(-1)
        return _NO_THROTTLE + _int16(COORDINATOR_NOT_AVAILABLE) + _string(None) + nobody

    def _list_offsets(self, request: _Reader) -> bytes:
        request.int32()  # replica
        request.int8()  # isolation

        def partition() -> tuple[int, int]:
            number = request.int32()
            request.int32()  # leader epoch
            return number, request.int64()

        topics = request.array(lambda: (request.string(), request.array(partition)))
        return _NO_THROTTLE + _array(
            [
                _string(name)
                + _array([_int32(number) + self._offset(name, time) for number, time in asked])
                for name, asked in topics or []
            ]
        )

    def _offset(self, name: str, time: int) -> bytes:
        log = self._logs[name]
        found: tuple[int, int] | None
        if time == EARLIEST:
            found = log.log_start_offset, -1
        elif time == LATEST:
            found = log.log_end_offset, -1
        else:
            found = log.offset_for_time(time)
        offset, timestamp = found or (-1, -1)
        return _int16(NO_ERROR) + _int64(timestamp) + _int64(offset) + _int32(-1)

    async def _fetch(self, request: _Reader) -> bytes:
        request.int32()  # replica
        wait_s = request.int32() / 1000
        request.int32()  # least bytes
        room = request.int32()
        request.int8()  # isolation
        request.int32()  # session
        request.int32()  # session epoch

        def partition() -> tuple[int, int, int]:
            number = request.int32()
            request.int32()  # leader epoch
            offset = request.int64()
            request.int64()  # log start offset of a follower
            return number, offset, request.int32()

        topics = request.array(lambda: (request.string(), request.array(partition)))
        answers = []
        found = 0
        for name, asked in topics or []:
            partitions = []
            for number, offset, at_most in asked or []:
                answer, size = self._read(name, number, offset, min(at_most, room - found))
                partitions.append(answer)
                found += size
            answers.append(_string(name) + _array(partitions))
        if not found:
            # Nobody appends while we serve, so there is nothing to wait for, but a client that
            # is at the end should not ask again at once.
            await asyncio.sleep(min(wait_s, LONGEST_WAIT_S))
        return _NO_THROTTLE + _int16(NO_ERROR) + _int32(0) + _array(answers)

    def _read(self, name: str, number: int, offset: int, max_bytes: int) -> tuple[bytes, int]:
        """A partition's part of the answer, and how many bytes of batches are in it."""
        log = self._logs[name]
        error, data = NO_ERROR, b""
        try:
            if max_bytes > 0:
                data = log.read(offset, max_bytes=max_bytes).data
        except OffsetOutOfRangeError:
            error = OFFSET_OUT_OF_RANGE
        end = log.log_end_offset
        answer = (
            _int32(number)
            + _int16(error)
            + _int64(end)  # high watermark
            + _int64(end)  # last stable offset
            + _int64(log.log_start_offset)
            + _NULL_ARRAY  # aborted transactions: only for who asked for committed ones
            + _int32(-1)  # preferred read replica
            + _int32(len(data))
            + data
        )
        return answer, len(data)
