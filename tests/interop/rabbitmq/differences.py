"""Where logstore and RabbitMQ differ in the scenarios: all of it, with the reason.

A difference names the scenario and says what our outcome is of each step that comes out otherwise.
One that is not listed fails a test, and so does a listed one that is none any more. What a user
needs to know stands in docs/compatibility.md as well, in a row that begins with ``row``.
"""

from __future__ import annotations

from typing import NamedTuple

from .language import Outcome

__all__ = ["DIFFERENCES", "Difference"]


class Difference(NamedTuple):
    """One scenario that comes out otherwise here."""

    scenario: str
    ours: dict[int, Outcome]
    """Our outcomes, by the number of the step, counted from 0."""
    row: str
    """The first cell of the row in docs/compatibility.md that tells of it."""
    reason: str


DIFFERENCES = (
    Difference(
        "the default exchange as an alternate",
        {2: "confirmed", 4: [{"body": "1", "exchange": "x", "key": "q"}]},
        row="The default exchange as an alternate exchange",
        reason="To RabbitMQ 3.10 the default exchange has no bindings where it is not published "
        "to itself. To us it is an exchange like any other, as the specification has it.",
    ),
    Difference(
        "an exchange of an unknown type",
        {0: {"error": 406}},
        row="Errors",
        reason="RabbitMQ takes it for an error of the connection (503) and closes that. Here it is "
        "an InvalidInputError, as every argument that makes no sense.",
    ),
    Difference(
        "acknowledging something else after an error",
        {4: "ok"},
        row="Errors",
        reason="RabbitMQ closes the channel, and what it had delivered comes back. There is no "
        "protocol here whose state would be in doubt: the channel goes on.",
    ),
    Difference(
        "a user id that is somebody else's",
        {1: "confirmed", 2: [{"body": "1", "key": "q", "user_id": "somebody"}]},
        row="`user_id`",
        reason="RabbitMQ compares it with the connection's user. There are no users here.",
    ),
    Difference(
        "a table in the headers with its fields in another order",
        {
            4: "confirmed",
            5: [
                {"body": "1", "exchange": "x", "headers": {"t": {"a": 1, "b": 2}}},
                {"body": "2", "exchange": "x", "headers": {"t": {"a": 1, "b": 2}}},
            ],
        },
        row="Headers: a table in a table, compared",
        reason="Erlang compares tables as lists of fields. In Python, as in AMQP's specification, "
        "a table has no order.",
    ),
    Difference(
        "two reasons in one queue",
        {
            9: [
                {
                    "body": "1",
                    "key": "d",
                    "headers": {
                        "x-death": [
                            {
                                "count": 1,
                                "reason": "expired",
                                "queue": "q",
                                "exchange": "",
                                "routing-keys": ["q"],
                            },
                            {
                                "count": 1,
                                "reason": "rejected",
                                "queue": "d",
                                "exchange": "",
                                "routing-keys": ["d"],
                            },
                            {
                                "count": 1,
                                "reason": "rejected",
                                "queue": "q",
                                "exchange": "",
                                "routing-keys": ["q"],
                            },
                        ],
                        "x-first-death-exchange": "",
                        "x-first-death-queue": "q",
                        "x-first-death-reason": "rejected",
                    },
                }
            ]
        },
        row="`x-death` of three deaths and more",
        reason="RabbitMQ 3.10 turns the earlier deaths round each time that it adds one. Ours are "
        "in the order that its documentation promises: the latest first.",
    ),
)
