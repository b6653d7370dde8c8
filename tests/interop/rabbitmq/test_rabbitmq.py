"""RabbitMQ still does what is recorded of it. Needs RabbitMQ (``setup.sh`` brings it) and pika."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pytest

from . import server
from .language import Scenario
from .record import load, play, shown
from .scenarios import AREAS

WHY_NOT = server.available()
pytestmark = [
    pytest.mark.rabbitmq,
    pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT)),
]

_ALL = [
    pytest.param(area, scenario, id=scenario.name)
    for area, scenarios in AREAS.items()
    for scenario in scenarios
]


@pytest.fixture(scope="module")
def parameters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server that runs, and how to connect to it."""
    with server.Server(tmp_path_factory.mktemp("rabbitmq")) as running:
        running.start()
        yield running.parameters()


@pytest.mark.parametrize(("area", "scenario"), _ALL)
def test_rabbitmq_does_what_is_recorded(area: str, scenario: Scenario, parameters: Any) -> None:
    driver = importlib.import_module("tests.interop.rabbitmq.pika_driver").PikaDriver
    assert shown(play(driver(parameters), scenario)) == shown(load(area)[1][scenario.name])
