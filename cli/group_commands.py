"""What the commands of consumer groups and of share groups have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import click

from logstore.cli.options import confirm_deletion
from logstore.cli.output import Lines, count_of, json_line, standard_output
from logstore.cli.tables import print_table

__all__ = ["delete_groups", "print_groups"]


class _Listing(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def members(self) -> int: ...


class _Groups(Protocol):
    @property
    def describe(self) -> Callable[[str], object]: ...
    @property
    def delete(self) -> Callable[[str], object]: ...


def _key(kind: str) -> str:
    return kind.replace(" ", "_")


def _type(kind: str) -> str:
    return kind.replace(" ", "-")


def print_groups(kind: str, listings: Sequence[_Listing], *, as_json: bool) -> None:
    """Print a list of groups; ``kind`` is "group" or "share group"."""
    if as_json:
        for one in listings:
            fields = {_key(kind): one.name, "state": one.state, "members": one.members}
            standard_output().write(json_line({"type": _type(kind), **fields}))
        return
    rows = [(one.name, one.state, f"{one.members}") for one in listings]
    print_table(Lines(), (kind.upper(), "STATE", "MEMBERS"), rows)


def delete_groups(
    ctx: click.Context,
    kind: str,
    groups: _Groups,
    names: tuple[str, ...],
    *,
    yes: bool,
    as_json: bool,
) -> None:
    """Delete groups, and say so of each; asks first on a terminal."""
    names = tuple(dict.fromkeys(names))
    for name in names:
        groups.describe(name)  # raises where there is no such group
    confirm_deletion(ctx, f"{count_of(len(names), kind)} ({', '.join(names)})", yes=yes)
    for name in names:
        groups.delete(name)
        if as_json:
            fields = {"type": f"{_type(kind)}-deleted", _key(kind): name}
            standard_output().write(json_line(fields))
        else:
            Lines().line(f"deleted {kind} {name}")
