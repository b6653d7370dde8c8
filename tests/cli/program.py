"""Running the program: in this process where that is enough, as one of its own where it is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from logstore.cli.main import main

COMMAND = [sys.executable, "-c", "from logstore.cli.main import main; main()"]
GOLDEN = Path(__file__).resolve().parent.parent / "golden"


def run(
    *words: str | Path, store: Path | None = None, stdin: bytes | str | None = None, code: int = 0
) -> Result:
    """Run the program in this process; ``words`` are split at spaces in the first of them."""
    first, *rest = words
    arguments = [*str(first).split(), *map(str, rest)]
    environment = {"LOGSTORE_DIR": str(store) if store is not None else None}
    result = CliRunner().invoke(main, arguments, input=stdin, env=environment)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    assert result.exit_code == code, (arguments, result.stdout, result.stderr)
    return result


def json_lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout_bytes.splitlines()]


def start(
    *words: str | Path, store: Path | None = None, stdin: Any = subprocess.DEVNULL, **options: Any
) -> subprocess.Popen[bytes]:
    """Start the program as a process whose three streams are pipes, unless said otherwise."""
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}
    environment.pop("LOGSTORE_DIR", None)
    if store is not None:
        environment["LOGSTORE_DIR"] = str(store)
    first, *rest = words
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    command: Sequence[str] = [*COMMAND, *str(first).split(), *map(str, rest)]
    return subprocess.Popen(command, stdin=stdin, env=environment, **options)


def only_line(text: str) -> str:
    """The one line that ``text`` consists of."""
    assert text.endswith("\n")
    assert text.count("\n") == 1, text
    assert "Traceback" not in text
    return text[:-1]
