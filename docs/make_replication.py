"""Runs the commands in docs/replication.md again, and puts what they print in their places.

A block of the kind ``console`` begins with a command behind ``$``; what follows is what it prints.
`make docs` calls this, and a test holds that it would change nothing.
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

from click.testing import CliRunner

from logstore.cli.main import main

__all__ = ["DOCUMENT", "commands", "document"]

DOCUMENT = Path(__file__).resolve().parent / "replication.md"

_BLOCK = re.compile(r"^```console\n\$ ([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[tuple[str, str]]:
    """Every command of a document, and what it prints there."""
    return [(found[1], found[2]) for found in _BLOCK.finditer(text)]


def printed(command: str) -> str:
    """What a command prints. Raises ValueError unless it ends with 0."""
    program, *words = shlex.split(command)
    result = CliRunner().invoke(main, words)
    if program != "logstore" or result.exit_code != 0:
        raise ValueError(f"{command} ended with {result.exit_code}: {result.stderr}")
    return result.stdout


def document(text: str) -> str:
    """A document with what its commands print now."""
    return _BLOCK.sub(lambda found: f"```console\n$ {found[1]}\n{printed(found[1])}```", text)


if __name__ == "__main__":
    before = DOCUMENT.read_text(encoding="utf-8")
    after = document(before)
    DOCUMENT.write_text(after, encoding="utf-8")
    print(f"{'wrote' if after != before else 'left'} {DOCUMENT.name}", file=sys.stderr)
