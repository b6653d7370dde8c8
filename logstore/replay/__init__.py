"""Running a log again: from any source, at any pace, into any sink; step by step, forwards and
backwards; folded into a state, and searched for the first record that broke it.
"""

from __future__ import annotations

from logstore.replay.changes import Change, as_data, changes
from logstore.replay.engine import Outcome, Replay
from logstore.replay.errors import ReplayError, UserCodeError
from logstore.replay.expressions import Expression, ExpressionError, compile_expression
from logstore.replay.session import Place, Session, Stop
from logstore.replay.source import Chunk, ListSource, Position, Range, Source

__all__ = [
    "Change",
    "Chunk",
    "Expression",
    "ExpressionError",
    "ListSource",
    "Outcome",
    "Place",
    "Position",
    "Range",
    "Replay",
    "ReplayError",
    "Session",
    "Source",
    "Stop",
    "UserCodeError",
    "as_data",
    "changes",
    "compile_expression",
]
