"""All scenarios, by area: each area has a file of transcripts."""

from __future__ import annotations

from . import (
    consuming_scenarios,
    dead_letter_scenarios,
    declaring_scenarios,
    generated_scenarios,
    queue_scenarios,
    routing_scenarios,
)
from .language import Scenario

__all__ = ["AREAS"]

AREAS: dict[str, tuple[Scenario, ...]] = {
    "routing": (*routing_scenarios.SCENARIOS, *declaring_scenarios.SCENARIOS),
    "queues": queue_scenarios.SCENARIOS,
    "consuming": consuming_scenarios.SCENARIOS,
    "dead_letters": dead_letter_scenarios.SCENARIOS,
    "generated": generated_scenarios.SCENARIOS,
}
