"""What the tests of queues generate: tables, properties, messages."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from logstore.queues.properties import Envelope, Properties

TEXT = st.text(max_size=12)
SHORT = st.text(max_size=60)


def decimals() -> st.SearchStrategy[Decimal]:
    """Numbers of 32 bits with places behind the point."""
    whole = st.integers(-(1 << 31), (1 << 31) - 1)
    return st.builds(lambda n, places: Decimal(n).scaleb(-places), whole, st.integers(0, 9))


SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.floats(allow_nan=False),
    decimals(),
    st.binary(max_size=12),
    TEXT,
    st.integers(0, 4_000_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
    st.none(),
)

VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)

TABLES: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    st.text(max_size=20), VALUES, max_size=5
)


def optional(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """``strategy``, or None."""
    return st.none() | strategy


@st.composite
def properties(draw: st.DrawFn) -> Properties:
    """Any that can be stored."""
    made = Properties(
        content_type=draw(optional(SHORT)),
        content_encoding=draw(optional(SHORT)),
        headers=draw(optional(TABLES)),
        delivery_mode=draw(optional(st.sampled_from([1, 2]))),
        priority=draw(optional(st.integers(0, 255))),
        correlation_id=draw(optional(SHORT)),
        reply_to=draw(optional(SHORT)),
        expiration=draw(optional(st.integers(0, (1 << 32) - 1))),
        message_id=draw(optional(SHORT)),
        timestamp=draw(optional(st.integers(0, (1 << 63) - 1))),
        type=draw(optional(SHORT)),
        user_id=draw(optional(SHORT)),
        app_id=draw(optional(SHORT)),
    )
    due = draw(st.sampled_from(["", "delay_ms", "deliver_at_ms"]))
    fields: dict[str, Any] = {due: draw(st.integers(0, 1 << 40))} if due else {}
    return made._replace(**fields)


def envelopes() -> st.SearchStrategy[Envelope]:
    """Any message."""
    return st.builds(Envelope, st.binary(max_size=50), properties(), SHORT, SHORT)
