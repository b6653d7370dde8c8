"""Shells in a pseudo-terminal, where somebody types a line and presses Tab."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from types import TracebackType

_DEADLINE_S = 60
_COMMANDS = {
    "bash": ("bash", "--norc", "--noprofile", "-i"),
    "zsh": ("zsh", "-f", "-i"),
}
# Ctrl-X Ctrl-P prints the line as it is, and empties it.
_PREPARED = {
    "bash": "PS1='> '; bind 'set enable-bracketed-paste off'; bind 'set bell-style none';"
    'show() { echo "LINE<$READLINE_LINE>"; READLINE_LINE=; READLINE_POINT=0; };'
    "bind -x '\"\\C-x\\C-p\": show'",
    "zsh": "PS1='> '; unsetopt zle_bracketed_paste prompt_cr prompt_sp beep;"
    "autoload -Uz compinit; compinit -u -D; zle -N show; bindkey '^X^P' show;"
    'show() { print -r -- "LINE<$BUFFER>"; BUFFER=; zle reset-prompt }',
}


class TypingShell:
    """bash or zsh, with the completion that the program prints for it."""

    def __init__(self, name: str, environment: Mapping[str, str], directory: str) -> None:
        main, terminal = pty.openpty()
        self._terminal = main
        self._process = subprocess.Popen(
            _COMMANDS[name],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env={**environment, "TERM": "dumb", "INPUTRC": os.devnull},
            cwd=directory,
            start_new_session=True,
        )
        os.close(terminal)
        self._seen = b""
        self.shown = ""
        """What stood on the terminal in front of the last answer."""
        self._type(f'{_PREPARED[name]}; eval "$(logstore completion {name})"; echo REA""DY\n')
        self._until(rb"READY")

    def __enter__(self) -> TypingShell:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)

    def completed(self, line: str) -> str:
        """The line after Tab. What is typed behind that waits until the shell has completed."""
        self._type(f"{line}\t\x18\x10")
        return self._until(rb"LINE<(.*?)>\r?\n")[1].decode()

    def _type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def _until(self, pattern: bytes) -> re.Match[bytes]:
        deadline = time.monotonic() + _DEADLINE_S
        while (found := re.search(pattern, self._seen, re.DOTALL)) is None:
            ready = select.select([self._terminal], [], [], max(0, deadline - time.monotonic()))
            assert ready[0], f"the shell has said no {pattern!r}, but {self._seen!r}"
            self._seen += os.read(self._terminal, 65536)
        self.shown = self._seen[: found.start()].decode(errors="replace")
        self._seen = self._seen[found.end() :]
        return found


def offered_by_fish(
    lines: Sequence[str], environment: Mapping[str, str], directory: str
) -> list[list[str]]:
    """What fish offers for the end of each line, without the texts beside it."""
    script = "logstore completion fish | source; for line in $argv; complete -C $line; echo; end"
    done = subprocess.run(
        ["fish", "--no-config", "-c", script, *lines],
        env=environment,
        cwd=directory,
        capture_output=True,
        check=True,
        timeout=_DEADLINE_S,
    )
    assert done.stderr == b""
    answers = done.stdout.decode().split("\n\n")
    return [[offer.split("\t")[0] for offer in answer.split("\n") if offer] for answer in answers]
