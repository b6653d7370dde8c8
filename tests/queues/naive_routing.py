"""Routing as one would write it down from the documentation: slow, plain, and independent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from logstore.queues.definitions import BindingDefinition, ExchangeDefinition


def pattern_matches(pattern: Sequence[str], key: Sequence[str]) -> bool:
    """Whether the words of a key are those that a pattern stands for."""
    if not pattern:
        return not key
    first, rest = pattern[0], pattern[1:]
    if first == "#":
        return any(pattern_matches(rest, key[taken:]) for taken in range(len(key) + 1))
    return bool(key) and first in ("*", key[0]) and pattern_matches(rest, key[1:])


def words(text: str) -> list[str]:
    return text.split(".") if text else []


def values_match(wanted: Any, found: Any) -> bool:
    if wanted is None:
        return True
    if found is None or isinstance(wanted, bool) != isinstance(found, bool):
        return False
    pair = []
    for value in (wanted, found):
        if isinstance(value, str):
            value = value.encode()
        elif isinstance(value, datetime):
            value = int(value.timestamp())
        pair.append(value)
    one, other = pair
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return one == other
    return type(one) is type(other) and one == other


def headers_match(arguments: Mapping[str, Any], headers: Mapping[str, Any]) -> bool:
    kind = arguments.get("x-match", "all")
    results = []
    for name, wanted in arguments.items():
        if name == "x-match" or (name.startswith("x-") and not kind.endswith("-with-x")):
            continue
        results.append(name in headers and values_match(wanted, headers[name]))
    return any(results) if kind.startswith("any") else all(results)


def naive_route(
    exchanges: Sequence[ExchangeDefinition],
    queues: Sequence[str],
    bindings: Sequence[BindingDefinition],
    exchange: str,
    keys: Sequence[str],
    headers: Mapping[str, Any],
) -> set[str]:
    """The queues that a message goes to: every binding of every exchange is looked at."""
    by_name = {definition.name: definition for definition in exchanges}
    found: set[str] = set()
    seen: set[str] = set()

    def visit(name: str) -> None:
        if name in seen:
            return
        seen.add(name)
        if name == "":
            found.update(set(keys) & set(queues))
            return
        if name not in by_name:
            return
        met = False
        for binding in bindings:
            if binding.source != name:
                continue
            exists = queues if binding.destination_type == "queue" else by_name
            if binding.destination not in exists:
                continue
            kind = by_name[name].type
            if kind == "direct":
                matches = binding.routing_key in keys
            elif kind == "fanout":
                matches = True
            elif kind == "topic":
                pattern = words(binding.routing_key)
                matches = any(pattern_matches(pattern, words(key)) for key in keys)
            else:
                matches = headers_match(binding.arguments, headers)
            if matches:
                met = True
                if binding.destination_type == "queue":
                    found.add(binding.destination)
                else:
                    visit(binding.destination)
        alternate = by_name[name].alternate_exchange
        if not met and alternate is not None:
            visit(alternate)

    visit(exchange)
    return found
