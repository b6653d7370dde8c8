"""Apache Kafka's own Java classes, called from the tests.

Each call starts a Java machine, which takes from half a second to one second: a test should ask
many things at once (`oracle_many` runs a list of commands in one process, and DumpLogSegments takes
several files). `tests/interop/setup.sh` fetches and compiles what is needed; without it,
`available()` says why not, and the tests skip:

    WHY_NOT = kafka_tools.available()
    pytestmark = [
        pytest.mark.kafka,
        pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT)),
    ]

The oracle's commands are listed at the top of `java/Oracle.java`.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
JARS = HERE / "jars"
CLASSES = HERE / "classes"

# A single-threaded collector and only the first compiler start fastest. The encodings are said
# because Java would take them from the locale, which on a build machine may be plain ASCII.
JVM_OPTIONS = (
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    *(f"-D{name}=UTF-8" for name in ("file.encoding", "sun.stdout.encoding", "stdout.encoding")),
    *(f"-D{name}=UTF-8" for name in ("sun.stderr.encoding", "stderr.encoding")),
)
# Whoever looks at stderr wants to see what a tool says, and not what Kafka's classes log.
_QUIET = "-Dorg.slf4j.simpleLogger.defaultLogLevel=off"
DUMP_LOG_SEGMENTS = "org.apache.kafka.tools.DumpLogSegments"
TIMEOUT_S = 120

BRIEF_BYTES = 64
"""Byte strings longer than this are shown by `describe --brief` as their size and SHA-256."""

Argument = str | os.PathLike[str]


class KafkaRefusedError(Exception):
    """Kafka's own code refused the data or the arguments; the text is what it said."""


@dataclass(frozen=True)
class Answer:
    """What one command answered: its exit status (0 is good), and what it printed."""

    status: int
    out: str
    err: str

    def lines(self) -> list[dict[str, Any]]:
        """Return the parsed JSON lines of `describe`, `batches` and `index`."""
        self.check()
        return [json.loads(line) for line in _lines(self.out)]

    def check(self) -> str:
        """Return what was printed, or raise `KafkaRefusedError` if the command failed."""
        if self.status != 0:
            raise KafkaRefusedError(f"status {self.status}: {self.err.strip() or self.out.strip()}")
        return self.out


@functools.cache
def available() -> str | None:
    """Return None if the oracle can be used, and otherwise the reason why it cannot."""
    if shutil.which("java") is None:
        return "no java on the PATH"
    for stamp in (JARS / ".complete", CLASSES / ".complete"):
        if not stamp.exists():
            return f"{stamp.parent.name}/ is not set up: run tests/interop/setup.sh"
    sources = [HERE / "pom.xml", *(HERE / "java").glob("*.java")]
    if any(source.stat().st_mtime > (CLASSES / ".complete").stat().st_mtime for source in sources):
        return "the oracle is older than its source: run tests/interop/setup.sh"
    return None


def java(main_class: str, *args: Argument, stdin: str = "") -> Answer:
    """Run one class of the oracle's class path in a Java machine of its own."""
    reason = available()
    if reason is not None:
        raise RuntimeError(f"the Kafka oracle is not available: {reason}")
    command = ["java", *JVM_OPTIONS, _QUIET, "-cp", f"{JARS}/*{os.pathsep}{CLASSES}", main_class]
    command += [os.fspath(arg) for arg in args]
    # Bytes, not text: Python would turn the line ends of printed payloads into its own.
    run = subprocess.run(
        command,
        input=stdin.encode(),
        capture_output=True,
        env=environment(os.environ),
        timeout=TIMEOUT_S,
        check=False,
    )
    return Answer(run.returncode, run.stdout.decode(), run.stderr.decode())


def oracle(*args: Argument) -> str:
    """Run one command of the oracle and return what it printed.

    Raises `KafkaRefusedError` with Kafka's own message if it failed.
    """
    return java("Oracle", *args).check()


def oracle_many(commands: Iterable[Sequence[Argument]]) -> list[Answer]:
    """Run many commands in one Java machine and return their answers in order.

    A failing command does not stop the next one: look at each answer's `status`, or call `check()`.
    """
    requests = [json.dumps([os.fspath(arg) for arg in command]) for command in commands]
    if not requests:
        return []
    out = java("Oracle", "serve", stdin="\n".join(requests) + "\n").check()
    answers = [Answer(**json.loads(line)) for line in _lines(out)]
    if len(answers) != len(requests):
        raise RuntimeError(f"the oracle answered {len(answers)} of {len(requests)} commands")
    return answers


def dump_log_segments(path: Argument | Sequence[Argument], *args: str) -> str:
    """Run Kafka's DumpLogSegments on one file or several; return what it printed.

    Further arguments are the tool's own, such as `--print-data-log`, `--deep-iteration`,
    `--verify-index-only` or `--index-sanity-check`. Damage does not make the tool fail: a bad CRC
    is `isvalid: false` in the text, and what it finds wrong with offsets or indexes it prints to
    stderr, which stands at the end of the returned text.
    Raises `KafkaRefusedError` where the tool itself ends with an error.
    """
    paths = [path] if isinstance(path, (str, os.PathLike)) else path
    answer = java(DUMP_LOG_SEGMENTS, "--files", joined(paths), *args)
    return answer.check() + answer.err


def joined(paths: Iterable[Argument]) -> str:
    """Several files as DumpLogSegments wants them."""
    return ",".join(os.fspath(path) for path in paths)


def brief(data: bytes | None) -> str | dict[str, Any] | None:
    """A key or value as `describe --brief` shows it."""
    if data is None:
        return None
    if len(data) > BRIEF_BYTES:
        return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return base64.b64encode(data).decode("ascii")


def _lines(text: str) -> list[str]:
    # Not splitlines(), which also splits at the line separators that JSON leaves in strings.
    return text.removesuffix("\n").split("\n") if text else []


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for a Java machine."""
    # A JVM that finds options in the environment says so on stderr, where we look for messages.
    return {k: v for k, v in environ.items() if k not in ("JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS")}
