"""Which queues a message goes to: RabbitMQ's rules, decided purely.

A :class:`Router` is made of definitions, and compiles what each exchange needs when it is first
used:

- direct: a dictionary from routing keys;
- topic: a trie of the patterns' words (``logstore.queues.topic_patterns``);
- fanout: nothing;
- headers: bindings stand under the rarest pair that they demand
  (``logstore.queues.header_matching``).

The rules beyond one exchange (source: RabbitMQ's documentation, "Exchange to Exchange Bindings" and
"Alternate Exchanges"): every exchange is looked at once, so cycles end; an exchange whose own
bindings match nothing passes the message to its alternate exchange, if that is there; a queue gets
a message once, however many ways lead to it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from logstore.errors import InvalidInputError, UnknownExchangeError
from logstore.queues.definitions import BindingDefinition, ExchangeDefinition
from logstore.queues.header_matching import HeadersMatcher
from logstore.queues.topic_patterns import TopicMatcher

__all__ = ["DEFAULT_EXCHANGE", "Destination", "Router", "extra_routing_keys"]

DEFAULT_EXCHANGE = ""
"""The exchange to which every queue is bound by its name, and nothing else."""

Destination = tuple[str, str]
"""``queue`` or ``exchange``, and its name."""

_MAX_CACHED = 4096
"""Routing keys for which an exchange's queues are remembered."""


class _Matcher(Protocol):
    """Finds the bindings of one exchange that a message meets."""

    def match(
        self, routing_keys: Sequence[str], headers: Mapping[str, Any]
    ) -> Collection[Destination]:
        """Each destination once; none where no binding is met."""
        ...


class _Direct:
    def __init__(self, bindings: Iterable[BindingDefinition]) -> None:
        self._by_key: dict[str, dict[Destination, None]] = {}
        for binding in bindings:
            self._by_key.setdefault(binding.routing_key, {})[_destination(binding)] = None

    def match(
        self, routing_keys: Sequence[str], headers: Mapping[str, Any]
    ) -> Collection[Destination]:
        found: dict[Destination, None] = {}
        for routing_key in routing_keys:
            found.update(self._by_key.get(routing_key, {}))
        return found


class _Fanout:
    def __init__(self, bindings: Iterable[BindingDefinition]) -> None:
        self._all = dict.fromkeys(map(_destination, bindings))

    def match(
        self, routing_keys: Sequence[str], headers: Mapping[str, Any]
    ) -> Collection[Destination]:
        return self._all


class _Topic:
    def __init__(self, bindings: Iterable[BindingDefinition]) -> None:
        self._patterns: TopicMatcher[Destination] = TopicMatcher()
        for binding in bindings:
            self._patterns.add(binding.routing_key, _destination(binding))

    def match(
        self, routing_keys: Sequence[str], headers: Mapping[str, Any]
    ) -> Collection[Destination]:
        found: dict[Destination, None] = {}
        for routing_key in routing_keys:
            found.update(self._patterns.match(routing_key))
        return found


class _Headers:
    def __init__(self, bindings: Iterable[BindingDefinition]) -> None:
        self._matcher = HeadersMatcher(
            (binding.arguments, _destination(binding)) for binding in bindings
        )

    def match(
        self, routing_keys: Sequence[str], headers: Mapping[str, Any]
    ) -> Collection[Destination]:
        return self._matcher.match(headers)


_MATCHERS: dict[str, type] = {
    "direct": _Direct,
    "topic": _Topic,
    "fanout": _Fanout,
    "headers": _Headers,
}


def _destination(binding: BindingDefinition) -> Destination:
    return binding.destination_type, binding.destination


class Router:
    """Routes messages by a set of definitions, which do not change. Usable from many threads."""

    def __init__(
        self,
        exchanges: Iterable[ExchangeDefinition],
        queues: Iterable[str],
        bindings: Iterable[BindingDefinition],
        *,
        before: Router | None = None,
    ) -> None:
        """Bindings from or to what is not there count as none. ``before`` is the router of the
        definitions as they were: what was compiled for exchanges that are the same is used."""
        self._exchanges = {exchange.name: exchange for exchange in exchanges}
        self._queues = frozenset(queues)
        self._bindings: dict[str, list[BindingDefinition]] = {}
        """By their source."""
        for binding in bindings:
            there = self._queues if binding.destination_type == "queue" else self._exchanges
            if binding.destination in there and binding.source in self._exchanges:
                self._bindings.setdefault(binding.source, []).append(binding)
        self._matchers: dict[str, _Matcher] = {}
        """Made when an exchange is first used."""
        if before is not None:
            self._matchers = {
                name: matcher
                for name, matcher in before._matchers.items()
                if self._bindings.get(name) == before._bindings.get(name)
                and self._exchanges.get(name) == before._exchanges[name]
            }
        self._cache: dict[str, dict[str, tuple[str, ...]]] = {}
        """By exchange: the queues of routing keys, for exchanges that lead to no headers exchange;
        emptied when it is full."""
        self._by_headers: dict[str, bool] = {}
        """By exchange: whether the headers of a message may decide where it goes."""

    def route(
        self,
        exchange: str,
        routing_key: str,
        headers: Mapping[str, Any] | None = None,
        extra_keys: Sequence[str] = (),
    ) -> tuple[str, ...]:
        """The names of the queues that a message goes to, ascending; none if it is unroutable.

        ``extra_keys`` are those that the sender selected (:func:`extra_routing_keys`). Raises
        UnknownExchangeError.
        """
        if exchange == DEFAULT_EXCHANGE:
            if not extra_keys:
                return (routing_key,) if routing_key in self._queues else ()
            return tuple(sorted(self._queues.intersection((routing_key, *extra_keys))))
        cache = self._cache.get(exchange)
        if cache is None:
            if exchange not in self._exchanges:
                raise UnknownExchangeError(f"there is no exchange called {exchange!r}")
            cache = self._cache.setdefault(exchange, {})
        if extra_keys or self.looks_at_headers(exchange):
            return self._find(exchange, (routing_key, *extra_keys), headers or {})
        found = cache.get(routing_key)
        if found is None:
            found = self._find(exchange, (routing_key,), {})
            if len(cache) >= _MAX_CACHED:
                cache.clear()
            cache[routing_key] = found
        return found

    def looks_at_headers(self, exchange: str) -> bool:
        """Whether the headers of a message that is published there decide where it goes."""
        known = self._by_headers.get(exchange)
        if known is None:
            reachable = self._reachable(exchange)
            known = any(self._exchanges[name].type == "headers" for name in reachable)
            self._by_headers[exchange] = known
        return known

    def _reachable(self, exchange: str) -> set[str]:
        found: set[str] = set()
        waiting = [exchange]
        while waiting:
            name = waiting.pop()
            if name in found or name not in self._exchanges:
                continue
            found.add(name)
            waiting.append(self._exchanges[name].alternate_exchange or "")
            waiting += [
                binding.destination
                for binding in self._bindings.get(name, ())
                if binding.destination_type == "exchange"
            ]
        return found

    def _find(
        self, exchange: str, routing_keys: Sequence[str], headers: Mapping[str, Any]
    ) -> tuple[str, ...]:
        queues: set[str] = set()
        seen = {exchange}
        waiting = [exchange]
        while waiting:
            name = waiting.pop()
            if name == DEFAULT_EXCHANGE:  # as an alternate exchange
                queues.update(self._queues.intersection(routing_keys))
                continue
            destinations = self._matcher(name).match(routing_keys, headers)
            following = [found for kind, found in destinations if kind == "exchange"]
            queues.update(found for kind, found in destinations if kind == "queue")
            if not destinations:
                alternate = self._exchanges[name].alternate_exchange
                if alternate is not None:
                    following = [alternate]
            for found in following:
                if found not in seen and (found in self._exchanges or found == DEFAULT_EXCHANGE):
                    seen.add(found)
                    waiting.append(found)
        return tuple(sorted(queues))

    def _matcher(self, exchange: str) -> _Matcher:
        matcher = self._matchers.get(exchange)
        if matcher is None:
            kind = _MATCHERS[self._exchanges[exchange].type]
            matcher = self._matchers[exchange] = kind(self._bindings.get(exchange, ()))
        return matcher


def extra_routing_keys(headers: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The routing keys that the sender selected beside the message's own: the headers ``CC`` and
    ``BCC`` (source: RabbitMQ's documentation, "Sender-selected Distribution").

    What is no text in them is no key. Raises InvalidInputError where one of them is no list.
    """
    if not headers or ("CC" not in headers and "BCC" not in headers):
        return ()
    found: list[str] = []
    for name in ("CC", "BCC"):
        keys = headers.get(name, [])
        if not isinstance(keys, (list, tuple)):
            raise InvalidInputError(f"the header {name} is a list of routing keys, not {keys!r}")
        found += [key for key in keys if isinstance(key, str)]
    return tuple(found)
