"""The commands of ``logstore replay --debug``: a line in, lines out. Who reads the lines from whom
is another file's business."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from logstore.cli.output import complain, count_of, time_text
from logstore.cli.replay_bisect import change_lines, record_text, state_lines, value_text
from logstore.errors import InvalidInputError, LogstoreError
from logstore.replay.changes import as_data
from logstore.replay.session import Session, Stop
from logstore.times import parse_time

__all__ = ["COMMANDS", "Debugger"]

Write = Callable[[str, str], object]
"""Prints a line in a style."""

_OFFSET = re.compile(r"(?:(\d{1,9}):)?(\d{1,19})\Z", re.ASCII)
_NUMBER = re.compile(r"\d{1,18}\Z", re.ASCII)
_REASONS = {
    "begin": "this is the beginning",
    "end": "this is the end",
    "until": "it is true here",
}


class _Command(NamedTuple):
    run: Callable[[Debugger, str], object]
    arguments: str
    help: str


class Debugger:
    """Does what lines say to a session."""

    def __init__(self, session: Session, write: Write, *, now_ms: int) -> None:
        self._session = session
        self._write = write
        self._now_ms = now_ms
        self._last = "next"
        """What an empty line of somebody at a terminal repeats."""
        self.has_failed = False
        """Whether a command was refused or went wrong."""
        self.is_done = False
        """Whether somebody has said that it is over."""

    def run(self, line: str, *, repeat: bool = False) -> None:
        """Do what a line says. With ``repeat`` an empty one does the last step again."""
        text = line.strip()
        if not text or text.startswith("#"):
            if text or not repeat:
                return
            text = self._last
        word, _, rest = text.partition(" ")
        try:
            name = _resolve(word)
            COMMANDS[name].run(self, rest.strip())
        except (LogstoreError, OSError) as error:
            self._fail(_text_of(error))
        except KeyboardInterrupt:
            self._fail("interrupted")
            self._show_record()
        else:
            if name in ("next", "back", "continue"):
                self._last = text

    def _fail(self, problem: str) -> None:
        self.has_failed = True
        complain(problem)

    # Moving -----------------------------------------------------------------------------------

    def next(self, rest: str) -> None:
        """Step forwards."""
        self._step(self._session.next, _count(rest))

    def back(self, rest: str) -> None:
        """Step backwards."""
        self._step(self._session.back, _count(rest))

    def _step(self, move: Callable[[int], Stop], count: int) -> None:
        before = self._session.state
        stop = move(count)
        self._show_stop(stop)
        self._show_record()
        self._show_changes(before, self._session.state)

    def cont(self, rest: str) -> None:
        """Run on."""
        _refuse_arguments(rest)
        self._arrive(self._session.run())

    def until(self, rest: str) -> None:
        """Run on to the first record for which an expression is true."""
        self._arrive(self._session.until(_expression(rest)))

    def goto(self, rest: str) -> None:
        """Go somewhere."""
        session = self._session
        found = _OFFSET.match(rest)
        if rest == "start":
            stop = session.goto_index(0)
        elif rest == "end":
            stop = session.until("false")
        elif found:
            stop = session.goto(int(found[2]), int(found[1]) if found[1] else None)
        elif rest:
            stop = session.goto_time(parse_time(rest.removeprefix("time "), self._now_ms))
        else:
            raise InvalidInputError("where to? goto OFFSET, PARTITION:OFFSET, TIME, start or end")
        self._arrive(stop)

    def _arrive(self, stop: Stop) -> None:
        self._show_stop(stop)
        self._show_record()
        if stop.record is not None:
            self._show_changes(self._session.state_before, self._session.state)

    def _show_stop(self, stop: Stop) -> None:
        if stop.reason == "break":
            text = self._session.breakpoints[stop.number or 0].text
            self._write(f"breakpoint {stop.number}: {text}", "yellow")
        elif stop.reason == "watch":
            text = self._session.watches[stop.number or 0].expression.text
            before, after = value_text(as_data(stop.before)), value_text(as_data(stop.after))
            self._write(f"watch {stop.number}: {text}: {before} -> {after}", "yellow")
        elif stop.reason in _REASONS:
            self._write(_REASONS[stop.reason], "yellow")
        for other in stop.also:
            self._show_stop(other)

    def _show_record(self) -> None:
        record = self._session.record
        if record is None:
            self._write("=> in front of the first record", "bold")
        else:
            self._write("=> " + record_text(record), "bold")

    def _show_changes(self, before: Any, after: Any) -> None:
        if before is None and after is None:
            return
        for line in change_lines(before, after):
            style = {"+": "green", "-": "red"}.get(line[0], "")
            self._write("   " + line, style)

    # Looking ----------------------------------------------------------------------------------

    def print(self, rest: str) -> None:
        """The value of an expression."""
        self._write(value_text(as_data(self._session.evaluate(_expression(rest)))), "")

    def state(self, rest: str) -> None:
        """The whole state."""
        _refuse_arguments(rest)
        for line in state_lines(self._session.state):
            self._write(line, "")

    def diff(self, rest: str) -> None:
        """What the record has changed."""
        _refuse_arguments(rest)
        self._show_changes(self._session.state_before, self._session.state)

    def where(self, rest: str) -> None:
        """Where it stands."""
        _refuse_arguments(rest)
        place = self._session.where()
        text = f"behind {count_of(place.behind, 'record')}"
        if place.record is not None:
            record = place.record
            text += (
                f": {record.topic}-{record.partition}, offset {record.offset}, "
                f"{time_text(record.timestamp)}"
            )
        if place.total:
            text += f"; {place.done:,} of {place.total:,}"
        self._write(text, "")

    def list(self, rest: str) -> None:
        """The records around."""
        count = _count(rest, 3)
        for record in self._session.recent(count + 1)[:-1]:
            self._write("   " + record_text(record), "dim")
        self._show_record()
        for record in self._session.coming(count):
            self._write("   " + record_text(record), "dim")

    # Breakpoints ------------------------------------------------------------------------------

    def break_at(self, rest: str) -> None:
        """Set a breakpoint, or list them."""
        if not rest:
            self._show_points()
            return
        self._write(f"breakpoint {self._session.break_at(rest)}: {rest}", "")

    def watch(self, rest: str) -> None:
        """Watch an expression, or list what is watched."""
        if not rest:
            self._show_points()
            return
        self._write(f"watch {self._session.watch(rest)}: {rest}", "")

    def delete(self, rest: str) -> None:
        """Forget one of them."""
        if not _NUMBER.match(rest):
            raise InvalidInputError("which one? delete NUMBER")
        self._session.delete(int(rest))

    def _show_points(self) -> None:
        points = {
            **{
                number: f"breakpoint {number}: {one.text}"
                for number, one in self._session.breakpoints.items()
            },
            **{
                number: f"watch {number}: {one.expression.text}"
                for number, one in self._session.watches.items()
            },
        }
        for number in sorted(points):
            self._write(points[number], "")
        if not points:
            self._write("no breakpoints, and nothing is watched", "")

    # The rest ---------------------------------------------------------------------------------

    def save(self, rest: str) -> None:
        """Write the session to a file."""
        if not rest:
            raise InvalidInputError("where to? save FILE")
        self._session.save(rest)
        self._write(f"saved to {rest}", "")

    def restore(self, rest: str) -> None:
        """Go on with a saved session."""
        if not rest:
            raise InvalidInputError("from where? restore FILE")
        self._arrive(self._session.restore(rest))

    def help(self, rest: str) -> None:
        """What there is to say."""
        names = [_resolve(rest)] if rest else list(COMMANDS)
        for name in names:
            command = COMMANDS[name]
            left = f"{name} {command.arguments}".strip()
            self._write(f"{left:<22}{command.help}", "")

    def quit(self, rest: str) -> None:
        """End it."""
        _refuse_arguments(rest)
        self.is_done = True


COMMANDS: dict[str, _Command] = {
    "next": _Command(Debugger.next, "[N]", "fold the next record, or N of them"),
    "back": _Command(Debugger.back, "[N]", "go back by a record, or by N"),
    "continue": _Command(Debugger.cont, "", "run to a breakpoint, a watched change, or the end"),
    "until": _Command(Debugger.until, "EXPR", "run to the first record for which EXPR is true"),
    "break": _Command(Debugger.break_at, "[EXPR]", "stop 'continue' where EXPR is true; list them"),
    "watch": _Command(Debugger.watch, "[EXPR]", "stop 'continue' where the value of EXPR changes"),
    "delete": _Command(Debugger.delete, "NUMBER", "forget a breakpoint or a watch"),
    "goto": _Command(Debugger.goto, "WHERE", "to an OFFSET, PARTITION:OFFSET, TIME, start or end"),
    "print": _Command(Debugger.print, "EXPR", "the value of EXPR over record and state"),
    "state": _Command(Debugger.state, "", "the whole state"),
    "diff": _Command(Debugger.diff, "", "what the record has changed in the state"),
    "where": _Command(Debugger.where, "", "the place in the log"),
    "list": _Command(Debugger.list, "[N]", "the records around, N on either side"),
    "save": _Command(Debugger.save, "FILE", "write place, breakpoints, record and state as JSON"),
    "restore": _Command(Debugger.restore, "FILE", "go where a saved session stood"),
    "help": _Command(Debugger.help, "[COMMAND]", "this list"),
    "quit": _Command(Debugger.quit, "", "end the session"),
}
"""By name; the beginning of a name is enough, where only one begins so."""

_SHORT = {"n": "next", "b": "back", "c": "continue", "p": "print", "s": "state", "d": "diff",
          "w": "where", "u": "until", "l": "list", "q": "quit", "h": "help", "?": "help",
          "g": "goto"}  # fmt: skip


def _resolve(word: str) -> str:
    if word in COMMANDS:
        return word
    if word in _SHORT:
        return _SHORT[word]
    found = [name for name in COMMANDS if name.startswith(word)]
    if len(found) == 1:
        return found[0]
    if found:
        raise InvalidInputError(f"{word!r} may be {' or '.join(found)}")
    raise InvalidInputError(f"there is no command {word!r}; 'help' lists those that there are")


def _count(rest: str, default: int = 1) -> int:
    if not rest:
        return default
    if not _NUMBER.match(rest) or int(rest) < 1:
        raise InvalidInputError(f"{rest!r} is no number of records: 1 or more")
    return int(rest)


def _expression(rest: str) -> str:
    if not rest:
        raise InvalidInputError("an expression is missing, as in: until state.balance < 0")
    return rest


def _refuse_arguments(rest: str) -> None:
    if rest:
        raise InvalidInputError(f"nothing may stand behind that command, and here is {rest!r}")


def _text_of(error: LogstoreError | OSError) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return str(error)
