"""A real broker: Apache Kafka 4.3.1 from the jars, broker and controller in one process.

It listens on loopback only, keeps its files below one directory, and can be stopped (cleanly, or
by SIGKILL) and started again over them:

    with Broker(tmp_path) as broker:
        broker.start()
        topic_id = broker.create_topic("orders", {"compression.type": "producer"})
        ...
        broker.stop()
        PartitionLog(broker.partition("orders"), read_only=True)

What it logs goes to a file, whose end stands in the message of every error. A start takes about
three seconds. Nothing of it outlives the `with`, or the test process.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import importlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from . import kafka_tools

START_DEADLINE_S = 60
STOP_DEADLINE_S = 40
REQUEST_DEADLINE_S = 30
_POLL_S = 0.05
_ATTEMPTS = 3
_LOG_TAIL_BYTES = 6000
_CLUSTER_ID = "bG9nc3RvcmUtdGVzdHMtMQ"  # sixteen bytes in base64, as Kafka writes its ids

# Small files and quick cleaning, so that a few records fill several segments; one partition and
# one replica of each internal topic; nothing is ever deleted for its age.
_PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",
    "auto.create.topics.enable": "false",
    "log.segment.bytes": "1048576",
    "log.index.size.max.bytes": "65536",
    "log.retention.ms": "-1",
    "log.retention.bytes": "-1",
    "log.initial.task.delay.ms": "100",
    "log.cleaner.backoff.ms": "100",
    "log.cleaner.dedupe.buffer.size": "4194304",
    "num.io.threads": "2",
    "num.network.threads": "1",
}


@functools.cache
def available() -> str | None:
    """Return None if a broker can be run and talked to, and otherwise the reason why not."""
    if importlib.util.find_spec("confluent_kafka") is None:
        return "confluent-kafka is not installed (the dev extra brings it)"
    return kafka_tools.available()


class BrokerError(Exception):
    """The broker did not do what it should; the text ends with the end of its log."""


class Broker:
    """A broker over the files below ``root``, which is made ready at the first start."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.logs = root / "logs"
        """The broker's log directory: a directory for each partition, and its checkpoints."""
        self._output = root / "broker.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._port = self._controller_port = 0

    def __enter__(self) -> Broker:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.kill()

    @property
    def address(self) -> str:
        """Where clients find it."""
        return f"127.0.0.1:{self._port}"

    def partition(self, topic: str, number: int = 0) -> Path:
        """The directory of a partition."""
        return self.logs / f"{topic}-{number}"

    # Life -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it, and return when it serves clients."""
        assert self._process is None, "the broker is running"
        for attempt in range(_ATTEMPTS):
            if attempt or not self._port:
                self._port, self._controller_port = _free_ports()
            self._write_properties()
            if not self.logs.exists():
                self._format()
            with self._output.open("wb") as output:
                self._process = subprocess.Popen(
                    [*_with_parent(), *_java("kafka.Kafka", self._properties)],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=self.root,
                    env=kafka_tools.environment(os.environ),
                )
            try:
                self._wait_until_ready()
                return
            except BrokerError:
                self.kill()
                # Somebody may have taken a port in the moment since it was free.
                if attempt + 1 == _ATTEMPTS or b"Address already in use" not in self._said():
                    raise

    def stop(self) -> None:
        """Stop it as an administrator does, with SIGTERM: a controlled shutdown."""
        status = self._end(signal.SIGTERM)
        if status not in (0, 128 + signal.SIGTERM):
            raise self._error(f"the broker ended with status {status}")

    def kill(self) -> None:
        """End it at once, with SIGKILL, if it runs."""
        if self._process is not None:
            self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> int:
        assert self._process is not None, "the broker is not running"
        self._process.send_signal(number)
        try:
            return self._process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise self._error(f"{number.name} did not end the broker") from None
        finally:
            self._process = None

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_DEADLINE_S
        while not _accepts(self._port):
            self._check(deadline)
            time.sleep(_POLL_S)
        while True:
            self._check(deadline)
            with contextlib.suppress(Exception):
                if self.admin().list_topics(timeout=1).brokers:
                    return

    def _check(self, deadline: float) -> None:
        assert self._process is not None
        if self._process.poll() is not None:
            raise self._error(f"the broker ended with status {self._process.returncode}")
        if time.monotonic() > deadline:
            raise self._error(f"the broker is not ready after {START_DEADLINE_S} seconds")

    # Setting up -------------------------------------------------------------------------------

    @property
    def _properties(self) -> Path:
        return self.root / "server.properties"

    def _write_properties(self) -> None:
        places = {
            "log.dirs": str(self.logs),
            "listeners": f"PLAINTEXT://{self.address},"
            f"CONTROLLER://127.0.0.1:{self._controller_port}",
            "advertised.listeners": f"PLAINTEXT://{self.address}",
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller_port}",
        }
        lines = [f"{key}={value}\n" for key, value in {**_PROPERTIES, **places}.items()]
        self._properties.write_text("".join(lines), encoding="utf-8")

    def _format(self) -> None:
        command = _java("kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID)
        run = subprocess.run(
            [*command, "-c", self._properties],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=kafka_tools.environment(os.environ),
            timeout=START_DEADLINE_S,
            check=False,
        )
        if run.returncode != 0:
            raise BrokerError(f"StorageTool: status {run.returncode}: {run.stdout.decode()}")

    # Its topics -------------------------------------------------------------------------------

    def admin(self) -> Any:
        """A new client for the broker's administration."""
        return _admin_module().AdminClient({"bootstrap.servers": self.address, "log_level": 0})

    def create_topics(self, configs: Mapping[str, Mapping[str, str]]) -> dict[str, uuid.UUID]:
        """Make topics of one partition with these settings, and return their ids."""
        admin = self.admin()
        topics = [
            _admin_module().NewTopic(name, 1, 1, config=dict(config))
            for name, config in configs.items()
        ]
        for made in admin.create_topics(topics, request_timeout=REQUEST_DEADLINE_S).values():
            made.result(REQUEST_DEADLINE_S)
        return self._ids_of(admin, list(configs))

    def _ids_of(self, admin: Any, names: list[str]) -> dict[str, uuid.UUID]:
        """The ids of topics; one that was made just now is not known to the broker for a moment."""
        import confluent_kafka

        deadline = time.monotonic() + REQUEST_DEADLINE_S
        while True:
            described = admin.describe_topics(
                confluent_kafka.TopicCollection(names), request_timeout=REQUEST_DEADLINE_S
            )
            try:
                return {
                    name: _uuid(str(answer.result(REQUEST_DEADLINE_S).topic_id))
                    for name, answer in described.items()
                }
            except confluent_kafka.KafkaException as error:
                unknown = confluent_kafka.KafkaError.UNKNOWN_TOPIC_OR_PART
                if error.args[0].code() != unknown or time.monotonic() > deadline:
                    raise
            time.sleep(_POLL_S)

    # Errors -----------------------------------------------------------------------------------

    def _said(self) -> bytes:
        return self._output.read_bytes() if self._output.exists() else b""

    def said(self) -> str:
        """The end of what it logged since its last start."""
        return self._said()[-_LOG_TAIL_BYTES:].decode("utf-8", "replace")

    def _error(self, what: str) -> BrokerError:
        return BrokerError(f"{what}; its log ends so:\n{self.said()}")


def _admin_module() -> Any:
    # Imported late, so that this module can say that the package is missing.
    return importlib.import_module("confluent_kafka.admin")


def _java(main_class: str, *args: str | Path) -> list[str]:
    options = ["-Xmx512m", "-Djava.net.preferIPv4Stack=true"]
    logging = {"defaultLogLevel": "info", "showDateTime": "true", "showThreadName": "false"}
    options += [f"-Dorg.slf4j.simpleLogger.{key}={value}" for key, value in logging.items()]
    class_path = ["-cp", f"{kafka_tools.JARS}/*"]
    return ["java", *kafka_tools.JVM_OPTIONS, *options, *class_path, main_class, *map(str, args)]


def _with_parent() -> list[str]:
    """What ends the broker even where the test process is killed and no `finally` runs."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL"] if setpriv else []


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _uuid(text: str) -> uuid.UUID:
    return uuid.UUID(bytes=base64.urlsafe_b64decode(text + "=="))
