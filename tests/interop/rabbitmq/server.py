"""RabbitMQ on loopback, from the packages that ``setup.sh`` has unpacked.

    with Server(tmp_path) as server:
        server.start()
        pika.ConnectionParameters("127.0.0.1", server.port)

Its ports are its own, Erlang's port mapper (epmd) is a process of ours on a port of its own, and
all files lie below one directory. Both end with the ``with`` block; where the test process is
killed, the kernel ends them (where there is ``setpriv``). A start takes about seven seconds.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE / "server"
ERLANG = ROOT / "usr/lib/erlang"

START_DEADLINE_S = 90
STOP_DEADLINE_S = 30
_POLL_S = 0.05
_ATTEMPTS = 3
_LOG_TAIL_BYTES = 6000


@functools.cache
def available() -> str | None:
    """Return None if RabbitMQ can be run and talked to, and otherwise the reason why not."""
    if importlib.util.find_spec("pika") is None:
        return "pika is not installed (the dev extra brings it)"
    if not (ROOT / ".complete").exists():
        return "RabbitMQ is not here: tests/interop/rabbitmq/setup.sh brings it"
    return None


def version() -> str:
    """RabbitMQ's and Erlang's."""
    (release,) = (ERLANG / "releases").glob("*/OTP_VERSION")
    return f"RabbitMQ {_home().name.split('-')[-1]}, Erlang {release.read_text('ascii').strip()}"


class ServerError(Exception):
    """The server did not do what it should; the text ends with the end of its log."""


class Server:
    """A RabbitMQ with its files below ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.port = 0
        """Where clients find it, on 127.0.0.1."""
        self._output = root / "server.log"
        self._processes: list[subprocess.Popen[bytes]] = []
        """Erlang's port mapper, and the server."""

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, and return when it serves clients."""
        assert not self._processes, "the server is running"
        for attempt in range(_ATTEMPTS):
            try:
                self._start_once(self.root / f"node-{attempt}")
                return
            except ServerError:
                self.stop()
                # Somebody may have taken a port in the moment since it was free.
                if attempt + 1 == _ATTEMPTS or "eaddrinuse" not in self._said():
                    raise

    def _start_once(self, base: Path) -> None:
        base.mkdir(parents=True)
        self.port, distribution, mapper = _free_ports(3)
        environment = _environment(base, self.port, distribution, mapper)
        with self._output.open("wb") as output:
            for command in (
                [str(ERLANG / "bin/epmd"), "-address", "127.0.0.1", "-port", str(mapper)],
                [str(_home() / "sbin/rabbitmq-server")],
            ):
                self._processes.append(
                    subprocess.Popen(
                        [*_with_parent(), *command],
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        cwd=base,
                        env=environment,
                    )
                )
        deadline = time.monotonic() + START_DEADLINE_S
        while not self._answers():
            if any(one.poll() is not None for one in self._processes):
                raise self._error("the server has ended")
            if time.monotonic() > deadline:
                raise self._error(f"the server is not ready after {START_DEADLINE_S} seconds")
            time.sleep(_POLL_S)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            pika = importlib.import_module("pika")
            with contextlib.suppress(pika.exceptions.AMQPError):
                pika.BlockingConnection(self.parameters()).close()
                return True
        return False

    def parameters(self) -> Any:
        """What pika needs to connect."""
        pika = importlib.import_module("pika")
        return pika.ConnectionParameters("127.0.0.1", self.port, heartbeat=0)

    def stop(self) -> None:
        """End it, and what it has started."""
        mapper_and_server, self._processes = self._processes, []
        for process in reversed(mapper_and_server):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_DEADLINE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _said(self) -> str:
        return self._output.read_bytes()[-_LOG_TAIL_BYTES:].decode("utf-8", "replace")

    def _error(self, what: str) -> ServerError:
        return ServerError(f"{what}; its log ends so:\n{self._said()}")


def _home() -> Path:
    (home,) = (ROOT / "usr/lib/rabbitmq/lib").glob("rabbitmq_server-*")
    return home


def _environment(base: Path, port: int, distribution: int, mapper: int) -> dict[str, str]:
    for name in ("rabbitmq.conf", "plugins"):
        (base / name).write_text("" if name.endswith("conf") else "[].\n", encoding="ascii")
    return {
        "PATH": f"{ERLANG / 'bin'}:{os.environ.get('PATH', os.defpath)}",
        "HOME": str(base),  # Erlang keeps its cookie there
        "LANG": "C.UTF-8",
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(mapper),
        "RABBITMQ_NODENAME": f"logstore-{secrets.token_hex(4)}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 -kernel inet_dist_use_interface {127,0,0,1}",
        "RABBITMQ_CONF_ENV_FILE": os.devnull,
        "RABBITMQ_CONFIG_FILE": str(base / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(base / "plugins"),
        "RABBITMQ_MNESIA_BASE": str(base / "mnesia"),
        "RABBITMQ_GENERATED_CONFIG_DIR": str(base / "config"),
        "RABBITMQ_LOG_BASE": str(base / "log"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_PID_FILE": str(base / "pid"),
        "RUNNING_UNDER_SYSTEMD": "true",  # no shell stands between us and Erlang
    }


def _with_parent() -> list[str]:
    """What ends a process even where the test process is killed and no ``finally`` runs."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL"] if setpriv else []


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
