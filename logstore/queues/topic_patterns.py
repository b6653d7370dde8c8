"""The patterns of topic exchanges: ``*`` stands for one word, ``#`` for any number of words.

Words are what stands between dots. They may be empty: ``a.`` has two. An empty routing key, or an
empty pattern, has no word at all (source: RabbitMQ's documentation, "Topic exchange", and what its
server does in these corners).

All patterns of an exchange lie in one trie, and a routing key walks all of its paths at once: the
*states* are the nodes that the words so far lead to. A ``#`` is a node that every word leads back
to. However patterns are made, a word costs as many steps as there are states, and there are never
more states than nodes: no key is matched twice against the same rest of a pattern.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

__all__ = ["TopicMatcher", "split_words"]

_T = TypeVar("_T")


def split_words(text: str) -> list[str]:
    """The words of a routing key or a pattern."""
    return text.split(".") if text else []


def normal_form(pattern: str) -> list[str]:
    """The words of a pattern, with every run of wildcards in the one form that all runs of the
    same meaning have: as many ``*`` as there are, and one ``#`` behind them if there is any."""
    words: list[str] = []
    hash_waits = False
    for word in split_words(pattern):
        if word == "#":
            hash_waits = True
        elif word == "*":
            words.append(word)
        else:
            if hash_waits:
                words.append("#")
                hash_waits = False
            words.append(word)
    if hash_waits:
        words.append("#")
    return words


class _Node(Generic[_T]):
    """A place in the trie: the words of patterns up to here."""

    __slots__ = ("any_number", "any_word", "loops", "targets", "words")

    def __init__(self, *, loops: bool = False) -> None:
        self.words: dict[str, _Node[_T]] = {}
        self.any_word: _Node[_T] | None = None
        """Behind ``*``."""
        self.any_number: _Node[_T] | None = None
        """Behind ``#``."""
        self.loops = loops
        """Whether it is itself behind a ``#``, and any word leads back to it."""
        self.targets: dict[_T, None] = {}
        """Of the patterns that end here."""


class TopicMatcher(Generic[_T]):
    """Finds the targets of all patterns that match a routing key."""

    def __init__(self) -> None:
        self._root: _Node[_T] = _Node()
        self.steps = 0
        """Pairs of a word and a state that the last match looked at; for tests."""

    def add(self, pattern: str, target: _T) -> None:
        """Bind a target by a pattern."""
        node = self._root
        for word in normal_form(pattern):
            if word == "#":
                if node.any_number is None:
                    node.any_number = _Node(loops=True)
                node = node.any_number
            elif word == "*":
                if node.any_word is None:
                    node.any_word = _Node()
                node = node.any_word
            else:
                node = node.words.setdefault(word, _Node())
        node.targets[target] = None

    def match(self, routing_key: str) -> dict[_T, None]:
        """The targets, each once."""
        states = _closed((self._root,))
        steps = 0
        for word in split_words(routing_key):
            if not states:
                break
            steps += len(states)
            following: list[_Node[_T]] = []
            for node in states:
                if node.loops:
                    following.append(node)
                if node.any_word is not None:
                    following.append(node.any_word)
                behind = node.words.get(word)
                if behind is not None:
                    following.append(behind)
            states = _closed(following)
        self.steps = steps
        found: dict[_T, None] = {}
        for node in states:
            found.update(node.targets)
        return found


def _closed(nodes: Iterable[_Node[_T]]) -> dict[_Node[_T], None]:
    """These nodes, and those that no word leads to from them: behind a ``#``."""
    states: dict[_Node[_T], None] = {}
    for node in nodes:
        states[node] = None
        # In normal form a node that loops has no further `#` behind it, so there is one step.
        if node.any_number is not None:
            states[node.any_number] = None
    return states
