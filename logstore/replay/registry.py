"""The kinds of sources and sinks, by the word that stands in front of a colon. A new kind is one
more function and one more entry in :data:`SOURCES` or :data:`SINKS`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import BinaryIO, NamedTuple

import logstore
from logstore.clock import Clock, SystemClock
from logstore.errors import (
    InvalidInputError,
    StoreNotFoundError,
    TopicExistsError,
    UnknownTopicError,
)
from logstore.fetcher import ConsumerRecord
from logstore.json_records import record_line
from logstore.replay.file_source import open_file, open_stream
from logstore.replay.log_source import open_directories, open_topic
from logstore.replay.message_sink import ExchangeSink, QueueSink
from logstore.replay.process_sink import ProcessSink
from logstore.replay.queue_source import open_queue
from logstore.replay.sink import FileSink, FunctionSink, Sink
from logstore.replay.source import Range, Source
from logstore.replay.topic_sink import PartitionMap, TopicSink
from logstore.replay.user_code import load_function
from logstore.segments.compression import Codec
from logstore.segments.files import DiskFiles, Files
from logstore.store import Store
from logstore.topic import Topic

__all__ = ["SINKS", "SOURCES", "SinkOptions", "SourceOptions", "open_sink", "open_source"]


class SourceOptions(NamedTuple):
    """What sources are opened with."""

    store: str | None = None
    """The directory of the store that topics are looked for in."""
    wanted: Range = Range()
    again: bool = False
    """Whether it is read more than once, or not only forwards."""
    stdin: Callable[[], BinaryIO] | None = None
    """Gives standard input."""
    files: Files = DiskFiles()
    clock: Clock = SystemClock()


def _topic(text: str, options: SourceOptions) -> Source:
    if options.store is None:
        raise InvalidInputError(f"topic {text!r}: of which store? Give --store DIR")
    files, clock = options.files, options.clock
    return open_topic(text, options.store, options.wanted, files=files, clock=clock)


def _queue(name: str, options: SourceOptions) -> Source:
    if options.store is None:
        raise InvalidInputError(f"queue {name!r}: of which store? Give --store DIR")
    files, clock = options.files, options.clock
    return open_queue(name, options.store, options.wanted, files=files, clock=clock)


def _directory(text: str, options: SourceOptions) -> Source:
    if not options.files.is_directory(text):
        raise InvalidInputError(f"{text}: there is no such directory")
    return open_directories(text, options.wanted, files=options.files, clock=options.clock)


def _file(text: str, options: SourceOptions) -> Source:
    if text == "-":
        if options.stdin is None:
            raise InvalidInputError("standard input cannot be read here")
        return open_stream(options.stdin(), options.wanted, again=options.again)
    if not options.files.exists(text):
        raise InvalidInputError(f"{text}: there is no such file")
    return open_file(text, options.wanted, files=options.files)


SOURCES: dict[str, Callable[[str, SourceOptions], Source]] = {
    "topic": _topic,
    "queue": _queue,
    "directory": _directory,
    "file": _file,
}
"""What opens a source of each kind. It raises what explains why there is none."""


def open_source(text: str, options: SourceOptions) -> Source:
    """The source that ``text`` names: ``topic:orders:0,2``, ``queue:payments``,
    ``directory:PATH``, ``file:PATH``, or ``-`` for standard input.

    Without a kind it is a topic of the store if there is one of that name, else the directory or
    file of that path. Raises InvalidInputError, UnknownTopicError, and what opening it raises.
    """
    kind, colon, rest = text.partition(":")
    if colon and kind in SOURCES:
        return SOURCES[kind](rest, options)
    if text == "-":
        return _file(text, options)
    is_path = options.files.exists(text)
    if options.store is not None and os.sep not in text:
        try:
            return _topic(text, options)
        except (UnknownTopicError, StoreNotFoundError):
            if not is_path:
                raise
    if not is_path:
        raise InvalidInputError(
            f"{text}: there is no such file or directory"
            + ("" if os.sep in text else ", and no store was named that could have such a topic")
        )
    return (_directory if options.files.is_directory(text) else _file)(text, options)


class SinkOptions(NamedTuple):
    """What sinks are opened with."""

    stack: contextlib.ExitStack
    """Closes what was opened for a sink, behind the sink itself."""
    store: str | None = None
    """The directory of the store that is written to."""
    partitions: int = 1
    """How many partitions a copy of the source needs."""
    mapped: PartitionMap = PartitionMap()
    keep_timestamps: bool = True
    codec: Codec | None = None
    form: Callable[[ConsumerRecord], bytes] = record_line
    """What becomes a line."""
    resumable: bool = False
    files: Files = DiskFiles()
    clock: Clock = SystemClock()


def _store(what: str, options: SinkOptions, *, create: bool) -> Store:
    if options.store is None:
        raise InvalidInputError(f"{what}: of which store? Give --to-store DIR")
    return options.stack.enter_context(
        logstore.open(
            options.store,
            create=create,
            maintenance_interval=None,
            files=options.files,
            clock=options.clock,
        )
    )


def _to_topic(name: str, options: SinkOptions) -> Sink:
    store = _store(f"topic {name!r}", options, create=True)
    grow: Callable[[int], Topic] | None = None
    try:
        topic = store.topic(name)
    except UnknownTopicError:
        try:
            topic = store.create_topic(name, partitions=_needed(options))
            grow = lambda count: store.add_partitions(name, count)  # noqa: E731
        except TopicExistsError:  # another process was as quick
            topic = store.topic(name)
    return TopicSink(
        topic,
        partitions=options.mapped,
        keep_timestamps=options.keep_timestamps,
        codec=options.codec,
        resumable=options.resumable,
        grow=grow,
        clock=options.clock,
    )


def _needed(options: SinkOptions) -> int:
    mapped = options.mapped
    if mapped.only is not None:
        return mapped.only + 1
    if mapped.numbers is not None:
        return max(mapped.numbers.values()) + 1
    return options.partitions


def _to_queue(name: str, options: SinkOptions) -> Sink:
    return QueueSink(_store(f"queue {name!r}", options, create=False), name)


def _to_exchange(text: str, options: SinkOptions) -> Sink:
    name, slash, routing_key = text.partition("/")
    store = _store(f"exchange {name!r}", options, create=False)
    return ExchangeSink(store, name, routing_key if slash else None)


def _to_file(path: str, options: SinkOptions) -> Sink:
    return FileSink(path, options.form, files=options.files)


def _to_function(name: str, options: SinkOptions) -> Sink:
    return FunctionSink(name, load_function(name))


def _to_command(command: str, options: SinkOptions) -> Sink:
    return ProcessSink(command, options.form)


SINKS: dict[str, Callable[[str, SinkOptions], Sink]] = {
    "topic": _to_topic,
    "queue": _to_queue,
    "exchange": _to_exchange,
    "file": _to_file,
    "call": _to_function,
    "command": _to_command,
}
"""What opens a sink of each kind."""


def open_sink(text: str, options: SinkOptions) -> Sink:
    """The sink that ``text`` names: ``topic:copy``, ``queue:payments``, ``exchange:shop`` or
    ``exchange:shop/order.eu``, ``file:PATH``, ``call:module:function`` or ``command:COMMAND``.
    Raises InvalidInputError for any other kind, and what opening it raises."""
    kind, colon, rest = text.partition(":")
    if not colon or not rest or kind not in SINKS:
        known = ", ".join(f"{name}:..." for name in SINKS)
        raise InvalidInputError(f"{text!r} names no kind of sink; there are {known}")
    return SINKS[kind](rest, options)
