"""Scenarios made at random, the same ones every time: each names the seed that it is made from.

Two kinds: a net of exchanges and queues that messages are routed through, and one queue from which
messages are taken, settled and given back on two channels.
"""

from __future__ import annotations

import random
from typing import Any

from .language import (
    Scenario,
    Step,
    ack,
    bind,
    bind_exchange,
    close,
    drain,
    exchange,
    get,
    nack,
    publish,
    publish_to,
    queue,
    reject,
    scenario,
    unbind,
    wait_ready,
)

__all__ = ["SCENARIOS"]

_WORDS = ("a", "b", "c", "")
_HEADERS = ("h1", "h2", "h3")
_VALUES: tuple[Any, ...] = (1, 2, "1", True)


def _key(random: random.Random) -> str:
    return ".".join(random.choice(_WORDS) for _ in range(random.randint(1, 3)))


def _pattern(random: random.Random) -> str:
    return ".".join(random.choice((*_WORDS, "*", "#")) for _ in range(random.randint(1, 4)))


def _table(random: random.Random) -> dict[str, Any]:
    names = random.sample(_HEADERS, random.randint(0, 2))
    return {name: random.choice(_VALUES) for name in names}


def _net(seed: int) -> Scenario:
    chance = random.Random(seed)
    kinds = ("direct", "topic", "fanout", "headers")
    exchanges = {f"x{n}": chance.choice(kinds) for n in range(4)}
    queues = [f"q{n}" for n in range(4)]
    steps: list[Step] = []
    for name, kind in exchanges.items():
        spare = {"alternate": chance.choice(list(exchanges))} if chance.random() < 0.3 else {}
        steps.append(exchange(name, kind, **spare))
    steps += [queue(name) for name in queues]
    bound = []
    for _ in range(10):
        source = chance.choice(list(exchanges))
        kind = exchanges[source]
        key = _pattern(chance) if kind == "topic" else _key(chance)
        arguments: dict[str, Any] = {}
        if kind == "headers":
            arguments = {**_table(chance), "x-match": chance.choice(("all", "any"))}
        if chance.random() < 0.7:
            target = chance.choice(queues)
            bound.append((target, source, key, arguments))
            steps.append(bind(target, source, key, headers=arguments))
        else:
            steps.append(bind_exchange(chance.choice(list(exchanges)), source, key, arguments))
    for number in range(12):
        headers = _table(chance)
        if chance.random() < 0.2:
            headers[chance.choice(("CC", "BCC"))] = [_key(chance)]
        properties = {"headers": headers} if headers else {}
        target = chance.choice([*exchanges, ""])
        key = _key(chance) if target else chance.choice(queues)
        steps.append(publish(target, key, str(number), mandatory=True, **properties))
        if number == 6 and bound:
            target, source, key, arguments = chance.choice(bound)
            steps.append(unbind(target, source, key, headers=arguments))
    steps += [drain(name) for name in queues]
    return scenario(f"a net of exchanges, seed {seed}", *steps)


def _settling(seed: int) -> Scenario:
    """What waits and what is held is tracked, so that each step makes sense and waits for what
    comes of it. Messages of one queue without priorities: RabbitMQ's order is by publication."""
    chance = random.Random(seed)
    steps: list[Step] = [queue("q", dead_letter_exchange="", dead_letter_routing_key="d")]
    steps.append(queue("d"))
    ready: list[int] = []
    held: dict[str, list[int]] = {"a": [], "b": []}
    made = dead = 0
    for _ in range(30):
        name = chance.choice("ab")
        action = chance.choice(("publish", "get", "get", "ack", "nack", "reject", "many", "close"))
        mine = held[name]
        if action == "publish":
            ready.append(made)
            steps += publish_to("q", str(made))
            made += 1
        elif action == "get":
            steps.append(get("q", channel=name))
            if ready:
                mine.append(ready.pop(0))
        elif action == "close" and chance.random() < 0.4:
            steps += [close(name), wait_ready("q", len(ready) + len(mine))]
            ready = sorted([*ready, *mine])
            mine.clear()
        elif mine and action in ("ack", "nack", "reject", "many"):
            one = chance.choice(mine)
            place = mine.index(one)
            several = action == "many" or chance.random() < 0.2
            chosen = mine[: place + 1] if several else [one]
            held[name] = [other for other in mine if other not in chosen]
            outcome = action if action != "many" else chance.choice(("ack", "nack", "dead"))
            if outcome == "ack":
                steps.append(ack(str(one), channel=name, multiple=several))
            elif outcome == "nack":
                steps.append(nack(str(one), channel=name, multiple=several))
                ready = sorted([*ready, *chosen])
                steps.append(wait_ready("q", len(ready)))
            else:
                if several:
                    steps.append(nack(str(one), channel=name, multiple=True, requeue=False))
                else:
                    steps.append(reject(str(one), channel=name))
                dead += len(chosen)
                steps.append(wait_ready("d", dead))
    waiting = len(ready) + len(held["a"]) + len(held["b"])
    steps += [close("a"), close("b"), wait_ready("q", waiting), drain("q"), drain("d")]
    return scenario(f"taking and settling, seed {seed}", *steps)


SCENARIOS: tuple[Scenario, ...] = (
    *(_net(seed) for seed in range(1, 21)),
    *(_settling(seed) for seed in range(1, 21)),
)
