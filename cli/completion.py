"""``logstore completion``: a shell completes commands, options, and names of what is in a store.

The shell calls the program again with ``_LOGSTORE_COMPLETE`` set (click's protocol). Only then are
the parameters of the command at hand taught what their values may be, from what they are called in
all commands: :func:`teach`. A store is opened for reading only, and whatever goes wrong completes
nothing: nobody wants an error in the middle of a line that is being typed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

import click
import lmdb
from click.shell_completion import CompletionItem

import logstore
from logstore.cli.completion_shells import SHELLS
from logstore.cli.options import ENVIRONMENT
from logstore.config import LogConfig
from logstore.errors import LogstoreError
from logstore.store import Store

__all__ = ["VARIABLE", "completion", "teach"]

VARIABLE = "_LOGSTORE_COMPLETE"
"""The environment variable by which a shell asks."""


@click.command(short_help="Print what makes a shell complete commands and names.")
@click.argument("shell", type=click.Choice(list(SHELLS)))
def completion(shell: str) -> None:
    """Print the script that makes SHELL complete this program's commands, options, and the names of
    topics, groups, queues and exchanges of the store (--store, or LOGSTORE_DIR).

    \b
    Examples:
      eval "$(logstore completion bash)"     in ~/.bashrc
      eval "$(logstore completion zsh)"      in ~/.zshrc
      logstore completion fish | source      in ~/.config/fish/config.fish

    Exit code: 0, 2 wrong use.
    """
    root = click.get_current_context().find_root()
    click.echo(SHELLS[shell](root.command, {}, "logstore", VARIABLE).source().strip())


# What completes -----------------------------------------------------------------------------


def _topics(store: Store) -> Iterator[str]:
    for topic in store.topics():
        yield topic.name


def _groups(store: Store) -> Iterator[str]:
    for listing in store.groups.list():
        yield listing.name


def _share_groups(store: Store) -> Iterator[str]:
    for listing in store.share_groups.list():
        yield listing.name


def _queues(store: Store) -> Iterator[str]:
    for definition in store.queues.queues():
        yield definition.name


def _exchanges(store: Store) -> Iterator[str]:
    for definition in store.queues.exchanges():
        if definition.name:
            yield definition.name


def _sources(store: Store) -> Iterator[str]:
    yield from _topics(store)
    for name in _queues(store):
        yield f"queue:{name}"


def _sinks(store: Store) -> Iterator[str]:
    for kind, names in (("topic", _topics), ("queue", _queues), ("exchange", _exchanges)):
        for name in names(store):
            yield f"{kind}:{name}"


_Names = Callable[[Store], Iterable[str]]
_MADE_HERE = {"topic create", "queue declare", "exchange declare"}
"""Commands whose name is a new one."""
_BY_NAME: dict[str, _Names] = {
    "topic": _topics,
    "topics": _topics,
    "queue": _queues,
    "exchange": _exchanges,
    "sources": _sources,
    "words": _sources,
    "dlq": _queues,
    "group": _groups,
    "share_group": _share_groups,
}
_BY_METAVAR: dict[str, _Names] = {
    "QUEUE": _queues,
    "GROUP": _groups,
    "GROUP...": _groups,
    "TOPIC": _topics,
    "DLQ": _queues,
    "EXCHANGE": _exchanges,
    "SINK": _sinks,
}
_BY_FAMILY: dict[str, _Names] = {"topic": _topics, "queue": _queues, "exchange": _exchanges}
"""What ``name`` is in the commands of a family."""


def teach(command: click.Command, path: str) -> None:
    """Let the parameters of the command with the words ``path`` complete their values."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None:
                teach(child, f"{path} {name}")
        return
    for param in command.params:
        names = _names_for(param, path)
        if names is not None:
            _set(param, _completer(names, files=param.name in ("sources", "words")))
        elif param.name == "config":
            _set(param, _config_keys)
        elif param.name == "partition" and isinstance(param, click.Option):
            _set(param, _partitions)


def _names_for(param: click.Parameter, path: str) -> _Names | None:
    if path in _MADE_HERE and isinstance(param, click.Argument):
        return None
    by_metavar = _BY_METAVAR.get(param.metavar or "")
    if by_metavar is _groups and (path.startswith("share-group ") or param.name == "share_group"):
        return _share_groups
    if by_metavar is not None:
        return by_metavar
    if param.name == "name" and isinstance(param, click.Argument):
        return _BY_FAMILY.get(path.partition(" ")[0])
    known = isinstance(param, click.Argument) or param.name in (
        "topic",
        "group",
        "share_group",
        "exchange",
    )
    return _BY_NAME.get(param.name or "") if known else None


_Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _set(param: click.Parameter, completer: _Completer) -> None:
    param._custom_shell_complete = completer


def _completer(names: _Names, *, files: bool) -> _Completer:
    def complete(
        ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        # In bash the first one makes it fall back on files, where no name fits.
        items = [CompletionItem(incomplete, type="file")] if files else []
        found = _read(ctx, names)
        items += [CompletionItem(name) for name in found if name.startswith(incomplete)]
        return items

    return complete


def _config_keys(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    return [
        CompletionItem(f"{key}=", help=text)
        for key, text in LogConfig.keys().items()
        if key.startswith(incomplete)
    ]


def _partitions(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The partitions of the topic that is named."""
    # An option whose value is still to come keeps click from giving the words their names.
    topic = ctx.params.get("topic") or next(iter(ctx.args), None)
    if not isinstance(topic, str):
        return []

    def numbers(store: Store) -> Iterable[str]:
        return map(str, range(store.topic(topic).partition_count))

    return [
        CompletionItem(number) for number in _read(ctx, numbers) if number.startswith(incomplete)
    ]


def _read(ctx: click.Context, names: _Names) -> list[str]:
    """What ``names`` reads of the store, if there is one; nothing where anything goes wrong."""
    path = _store_of(ctx)
    if not path:
        return []
    try:
        with logstore.open(path, create=False, read_only=True, maintenance_interval=None) as store:
            return sorted(names(store))
    except (LogstoreError, OSError, lmdb.Error):
        return []


def _store_of(ctx: click.Context) -> str | None:
    """The store that the command would work on."""
    at: click.Context | None = ctx
    while at is not None:
        store = at.params.get("store")
        if isinstance(store, str) and store:
            return os.path.expanduser(store)
        at = at.parent
    return os.environ.get(ENVIRONMENT)
