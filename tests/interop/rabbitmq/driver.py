"""What both drivers share: steps find their methods, and time limits."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from logstore.queues.field_table import to_json

from .language import Outcome, Scenario, Step

DEADLINE_S = 60.0
"""How long what has to come may take: only a failure takes so long."""
POLL_S = 0.01

ARGUMENTS = (
    "message_ttl",
    "expires",
    "max_length",
    "max_length_bytes",
    "overflow",
    "dead_letter_exchange",
    "dead_letter_routing_key",
    "delivery_limit",
    "max_priority",
)
"""Those of queues, which are given beside ``durable``, ``exclusive``, ``auto_delete``."""


class Driver:
    """Does steps on one side."""

    def run(self, scenario: Scenario) -> list[Outcome]:
        """Do all steps, and return the outcome of each."""
        return [self.do(step) for step in scenario.steps]

    def do(self, step: Step) -> Outcome:
        """Do a step; its outcome is what JSON can hold."""
        method: Callable[[Step], Outcome] = getattr(self, f"_{step['do']}")
        return method(step)

    def _pause(self, step: Step) -> Outcome:
        time.sleep(step["ms"] / 1000)
        return "ok"


def wait_for(what: str, condition: Callable[[], Any]) -> Any:
    """The first thing that is true; an error where that takes longer than a failure may."""
    deadline = time.monotonic() + DEADLINE_S
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {DEADLINE_S:.0f} seconds")
        time.sleep(POLL_S)
    return found


def message(
    body: bytes, exchange: str, routing_key: str, redelivered: bool, properties: dict[str, Any]
) -> dict[str, Any]:
    """A message as a transcript has it: without what is empty, and without the times of deaths."""
    headers = to_json(properties.pop("headers", None) or {})
    headers.pop("x-delivery-count", None)  # of quorum queues; here a field of the message
    for name in [name for name in headers if name.startswith("x-last-death-")]:
        del headers[name]  # RabbitMQ tells it from 3.13 on
    for death in headers.get("x-death") or ():
        if isinstance(death, dict):
            death.pop("time", None)
    shown = {
        "body": body.decode(),
        "exchange": exchange,
        "key": routing_key,
        "redelivered": redelivered,
        "headers": headers,
        **properties,
    }
    return {name: value for name, value in shown.items() if value or name == "body"}
