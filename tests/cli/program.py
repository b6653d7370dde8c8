"""Running the program: in this process where that is enough, as one of its own where it is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from logstore.cli.main import main

COMMAND = [sys.executable, "-c", "from logstore.cli.main import main; main()"]
GOLDEN = Path(__file__).resolve().parent.parent / "golden"


def run(
    *words: str | Path,
    store: Path | None = None,
    stdin: bytes | str | None = None,
    code: int | None = 0,
) -> Result:
    """Run the program in this process; ``words`` are split at spaces in the first of them.
    ``code`` is the exit code that it has to end with, None where that is not the point."""
    first, *rest = words
    arguments = [*str(first).split(), *map(str, rest)]
    environment = {"LOGSTORE_DIR": str(store) if store is not None else None}
    result = CliRunner().invoke(main, arguments, input=stdin, env=environment)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    assert code in (None, result.exit_code), (arguments, result.stdout, result.stderr)
    return result


def json_lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout_bytes.splitlines()]


@contextmanager
def running(
    *words: str | Path, store: Path | None = None, stdin: Any = subprocess.DEVNULL, **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """The program as a process whose streams are pipes, unless said otherwise; killed at the end,
    if it has not ended by then."""
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}
    environment.pop("LOGSTORE_DIR", None)
    if store is not None:
        environment["LOGSTORE_DIR"] = str(store)
    first, *rest = words
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    command = [*COMMAND, *str(first).split(), *map(str, rest)]
    process = subprocess.Popen(command, stdin=stdin, env=environment, **options)
    try:
        yield process
    finally:
        process.kill()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()
        process.wait()


def end_of(process: subprocess.Popen[bytes]) -> tuple[int, bytes]:
    """The exit code of a process that ends by itself, and what it complained of."""
    assert process.stderr is not None
    complaint = process.stderr.read()
    return process.wait(30), complaint


def only_line(text: str) -> str:
    """The one line that ``text`` consists of."""
    assert text.endswith("\n")
    assert text.count("\n") == 1, text
    assert "Traceback" not in text
    return text[:-1]
