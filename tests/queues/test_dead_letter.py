"""The history of a message's deaths, and when it ends."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logstore.queues.dead_letter import Reason, dead_letter, goes_in_circles
from logstore.queues.properties import Envelope, Properties, check_properties

from .strategies import envelopes

NOW_MS = 1_700_000_000_500
NOW = datetime.fromtimestamp(1_700_000_000, UTC)


def die(envelope: Envelope, queue: str, reason: Reason, now_ms: int = NOW_MS) -> Envelope:
    return dead_letter(envelope, queue=queue, reason=reason, now_ms=now_ms, exchange="dlx")


def test_the_first_death_is_told_in_full() -> None:
    properties = Properties(headers={"a": 1, "CC": ["copy"]}, expiration=60, priority=3)
    found = die(Envelope(b"body", properties, "shop", "order.paid"), "orders", "expired")
    assert found.body == b"body"
    assert (found.exchange, found.routing_key) == ("dlx", "order.paid")
    assert found.properties == Properties(
        priority=3,
        headers={
            "a": 1,
            "CC": ["copy"],
            "x-first-death-reason": "expired",
            "x-first-death-queue": "orders",
            "x-first-death-exchange": "shop",
            "x-last-death-reason": "expired",
            "x-last-death-queue": "orders",
            "x-last-death-exchange": "shop",
            "x-death": [
                {
                    "count": 1,
                    "reason": "expired",
                    "queue": "orders",
                    "time": NOW,
                    "exchange": "shop",
                    "routing-keys": ["order.paid", "copy"],
                    "original-expiration": "60",
                }
            ],
        },
    )


def test_a_message_that_has_no_time_to_live_has_no_original_expiration() -> None:
    (death,) = history(die(Envelope(b"", routing_key="k"), "q", "rejected"))
    assert "original-expiration" not in death
    assert death["exchange"] == ""
    assert death["routing-keys"] == ["k"]


def history(envelope: Envelope) -> list[dict[str, Any]]:
    assert envelope.properties.headers is not None
    found: list[dict[str, Any]] = envelope.properties.headers["x-death"]
    return found


def test_the_latest_death_stands_first_and_the_same_one_is_counted() -> None:
    message = Envelope(b"", Properties(expiration=5), "shop", "k")
    message = die(message, "orders", "expired")
    message = die(message, "failed", "rejected", NOW_MS + 10_000)
    message = die(message, "orders", "expired", NOW_MS + 20_000)
    first, second = history(message)
    assert (first["queue"], first["reason"], first["count"]) == ("orders", "expired", 2)
    assert (first["time"], first["exchange"]) == (NOW, "shop")  # those of the first such death
    assert first["original-expiration"] == "5"
    assert (second["queue"], second["reason"], second["count"]) == ("failed", "rejected", 1)
    assert second["exchange"] == "dlx"
    headers = message.properties.headers or {}
    assert headers["x-first-death-queue"] == "orders"
    assert headers["x-last-death-exchange"] == "dlx"
    message = die(message, "orders", "rejected", NOW_MS + 30_000)
    assert [death["count"] for death in history(message)] == [1, 2, 1]


def test_the_queues_own_routing_key_replaces_the_messages_and_its_copies() -> None:
    message = Envelope(b"", Properties(headers={"CC": ["copy"]}), "shop", "k")
    found = dead_letter(
        message, queue="q", reason="maxlen", now_ms=NOW_MS, exchange="", routing_key="dead"
    )
    assert (found.exchange, found.routing_key) == ("", "dead")
    assert "CC" not in (found.properties.headers or {})
    assert history(found)[0]["routing-keys"] == ["k", "copy"]


def test_a_delay_is_not_served_twice() -> None:
    for properties in (Properties(delay_ms=5), Properties(deliver_at_ms=5)):
        assert die(Envelope(b"", properties), "q", "rejected").properties.delay_ms is None
        assert die(Envelope(b"", properties), "q", "rejected").properties.deliver_at_ms is None


def test_the_message_that_died_stays_as_it_was() -> None:
    headers = {"a": 1}
    message = Envelope(b"", Properties(headers=headers), "shop", "k")
    once = die(message, "q", "rejected")
    before = [dict(death) for death in history(once)]
    die(once, "q", "rejected")
    assert headers == {"a": 1}
    assert history(once) == before


@pytest.mark.parametrize(
    ("deaths", "queue", "circles"),
    [
        ([], "q", False),
        ([("q", "expired")], "q", True),
        ([("q", "expired")], "other", False),
        ([("q", "rejected")], "q", False),
        ([("q", "maxlen")], "q", True),
        ([("q", "delivery_limit")], "q", True),
        ([("q", "expired"), ("r", "expired")], "q", True),
        ([("q", "expired"), ("r", "rejected")], "q", False),
        # rejected before it was in the queue the last time: nobody has rejected it since
        ([("r", "rejected"), ("q", "expired")], "q", True),
        ([("q", "rejected"), ("q", "expired")], "q", True),
        ([("q", "expired"), ("q", "rejected")], "q", False),
    ],
)
def test_a_queue_gets_a_message_again_only_if_it_was_rejected_since(
    deaths: list[tuple[str, Reason]], queue: str, circles: bool
) -> None:
    """``deaths``: the first one first."""
    message = Envelope(b"")
    for where, reason in deaths:
        message = die(message, where, reason)
    assert goes_in_circles(message, queue) is circles


@pytest.mark.parametrize("nonsense", [None, 5, "x", [], [1, None], [{"count": "x"}], {"a": 1}])
def test_a_history_that_a_publisher_made_up_does_no_harm(nonsense: Any) -> None:
    message = Envelope(b"", Properties(headers={"x-death": nonsense}))
    assert not goes_in_circles(message, "q")
    found = die(message, "q", "expired")
    assert history(found)[0]["queue"] == "q"
    assert goes_in_circles(found, "q")


def test_a_made_up_count_begins_again() -> None:
    forged = [{"queue": "q", "reason": "expired", "count": "many"}]
    message = Envelope(b"", Properties(headers={"x-death": forged}))
    assert history(die(message, "q", "expired"))[0]["count"] == 2


@given(
    envelopes(),
    st.lists(
        st.tuples(
            st.sampled_from(["p", "q", "r"]),
            st.sampled_from(get_args(Reason)),
            st.none() | st.sampled_from(["dead", ""]),
        ),
        min_size=1,
        max_size=12,
    ),
)
def test_a_dead_letter_can_be_stored_and_counts_every_death(
    message: Envelope, deaths: list[tuple[str, Any, str | None]]
) -> None:
    headers = dict(message.properties.headers or {})
    headers.pop("x-death", None)
    message = message._replace(properties=message.properties._replace(headers=headers))
    for queue, reason, key in deaths:
        message = dead_letter(
            message, queue=queue, reason=reason, now_ms=NOW_MS, exchange="dlx", routing_key=key
        )
        check_properties(message.properties)
    assert sum(death["count"] for death in history(message)) == len(deaths)
    assert len(history(message)) == len({(queue, reason) for queue, reason, _ in deaths})
    assert message.properties.expiration is None
