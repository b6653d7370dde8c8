"""How producers and consumers behave: options with Kafka's names, each with a default and a check.

A class of options is a frozen dataclass whose fields are made by :func:`option`. All of them are
checked when one is made, and what is wrong is said with the bound.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

from logstore.errors import InvalidInputError

__all__ = ["INT32_MAX", "INT64_MAX", "Check", "Options", "integer", "one_of", "option", "text"]

INT32_MAX = (1 << 31) - 1
INT64_MAX = (1 << 63) - 1

Check = Callable[[str, Any], str | None]
"""Says what is wrong with a key's value, if anything is."""


def option(default: Any, check: Check) -> Any:
    """A field of a class of options."""
    return dataclasses.field(default=default, metadata={"check": check})


def integer(lowest: int, highest: int = INT32_MAX) -> Check:
    """A whole number within bounds."""

    def check(key: str, value: Any) -> str | None:
        if isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= highest:
            return None
        return f"{key}={value!r} is out of bounds: a whole number, {lowest} to {highest}"

    return check


def one_of(*allowed: object) -> Check:
    """One of a few values. (True is not 1.)"""

    def check(key: str, value: Any) -> str | None:
        if any(type(value) is type(one) and value == one for one in allowed):
            return None
        return f"{key}={value!r} is none of {', '.join(map(repr, allowed))}"

    return check


def text(key: str, value: Any) -> str | None:
    """Any text."""
    return None if isinstance(value, str) else f"{key}={value!r} is no text"


class Options:
    """What classes of options have in common."""

    __slots__ = ()
    owner: ClassVar[str]
    """Who has them, with an article."""

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        """The configuration with these options; raises InvalidInputError for an unknown one, and,
        naming key and bounds, for a value."""
        known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
        for name in options:
            if name not in known:
                raise InvalidInputError(
                    f"{cls.owner} has no option called {name!r}; there are {', '.join(known)}"
                )
        return cls(**options)

    @classmethod
    def parsed(cls, name: str, text: str) -> Any:
        """The value of an option in text, such as ``5`` and ``true``; the text itself where it is
        none, or there is no such option."""
        fields = dataclasses.fields(cls)  # type: ignore[arg-type]
        default = next((field.default for field in fields if field.name == name), None)
        if isinstance(default, bool):
            return {"true": True, "false": False}.get(text.lower(), text)
        return int(text) if isinstance(default, int) and text.isdecimal() else text

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            problem = field.metadata["check"](field.name, getattr(self, field.name))
            if problem:
                raise InvalidInputError(problem)
        self.check()

    def check(self) -> None:
        """Raise InvalidInputError where options contradict each other."""
