"""Records as JSON, a line each: what ``read --json`` prints, and ``append --json`` and replays
read.

Keys and values are bytes: text where they are UTF-8, ``{"base64": "..."}`` where they are not, null
where they are null. ``docs/cli.md`` documents the fields.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from json.encoder import encode_basestring
from typing import Any

from logstore.errors import InvalidInputError
from logstore.fetcher import ConsumerRecord
from logstore.segments.record import Record

__all__ = [
    "json_bytes",
    "json_line",
    "json_parser",
    "parse_record_line",
    "record_fields",
    "record_line",
]

_ENCODING = ("utf-8", "surrogateescape")

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def json_line(fields: Mapping[str, Any]) -> bytes:
    """A JSON object and a line feed, in UTF-8."""
    # A path that is not UTF-8 holds lone surrogates; a backslash and their number is JSON, too.
    return _encode(fields).encode("utf-8", "backslashreplace") + b"\n"


def json_bytes(data: bytes | None) -> str | dict[str, str] | None:
    """Bytes as text where they are UTF-8, in base64 where they are not, null where null."""
    if data is None:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode("ascii")}


def _header_name(name: str) -> str | dict[str, str] | None:
    return json_bytes(name.encode("utf-8", "surrogateescape"))


def record_fields(record: Record) -> dict[str, Any]:
    """The fields of a record's JSON object that do not say where it is."""
    return {
        "offset": record.offset,
        "timestamp": record.timestamp,
        "key": json_bytes(record.key),
        "value": json_bytes(record.value),
        "headers": [[_header_name(name), json_bytes(value)] for name, value in record.headers],
    }


_spelled: Callable[[str], str] = encode_basestring
"""A text with its quotes, as ``_encode`` spells it."""


def _spelled_bytes(data: bytes | None) -> str:
    if data is None:
        return "null"
    try:
        return _spelled(data.decode())
    except UnicodeDecodeError:
        spelled = base64.b64encode(data).decode("ascii")
        return f'{{"base64":"{spelled}"}}'


def record_line(record: ConsumerRecord) -> bytes:
    """The line that ``read --json`` prints for a record, with its line feed.

    The same bytes as ``json_line`` of the record's fields, in a third of its time.
    """
    topic, partition, offset, timestamp, key, value, headers = record
    pairs = (
        ",".join(
            f"[{_spelled_bytes(name.encode(*_ENCODING))},{_spelled_bytes(field)}]"
            for name, field in headers
        )
        if headers
        else ""
    )
    return (
        f'{{"type":"record","topic":{_spelled(topic)},"partition":{partition},"offset":{offset},'
        f'"timestamp":{timestamp},"key":{_spelled_bytes(key)},"value":{_spelled_bytes(value)},'
        f'"headers":[{pairs}]}}\n'
    ).encode("utf-8", "backslashreplace")


def parse_record_line(line: bytes, *, topic: str, number: int) -> ConsumerRecord | None:
    """The record of a line; None for a line that is about something else, as ``dump`` prints
    batches, and for control records.

    ``topic`` and ``number`` are the topic and the offset of a record that does not say its own.
    Raises InvalidInputError.
    """
    fields, record = _parsed(line)
    if fields.get("type", "record") != "record" or "control" in fields:
        return None
    named = fields.get("topic", topic)
    if not isinstance(named, str):
        raise InvalidInputError(f'"topic" is text, not {named!r:.80}')
    if record is None:
        raise InvalidInputError(_NO_VALUE)
    offset = _integer(fields, "offset", 0)
    return ConsumerRecord(
        named,
        _integer(fields, "partition", 0) or 0,
        number if offset is None else offset,
        record.timestamp,
        record.key,
        record.value,
        tuple(record.headers),
    )


_NO_VALUE = 'the object has no "value" (null where there is none)'


def json_parser(line: bytes) -> tuple[int | None, Record]:
    """The record that ``read --json`` printed as ``line``; raises InvalidInputError."""
    fields, record = _parsed(line)
    if record is None:
        raise InvalidInputError(_NO_VALUE)
    return _integer(fields, "partition", 0), record


def _parsed(line: bytes) -> tuple[dict[str, Any], Record | None]:
    """The fields of a line, and its record if there is a value."""
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"this is no JSON: {error}") from None
    if not isinstance(fields, dict):
        raise InvalidInputError("this is no JSON object")
    if "value" not in fields:
        return fields, None
    headers = fields.get("headers")
    if headers is None:
        headers = []
    if not isinstance(headers, list) or not all(
        isinstance(pair, list) and len(pair) == 2 and pair[0] is not None for pair in headers
    ):
        raise InvalidInputError('"headers" is a list of pairs: [["name", "value"]]')
    record = Record(
        timestamp=-1 if (timestamp := _integer(fields, "timestamp", -1)) is None else timestamp,
        key=_bytes(fields.get("key"), "key"),
        value=_bytes(fields["value"], "value"),
        headers=[
            ((_bytes(name, "headers") or b"").decode(*_ENCODING), _bytes(value, "headers"))
            for name, value in headers
        ],
    )
    return fields, record


def _integer(fields: dict[str, Any], name: str, least: int) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidInputError(f'"{name}" is a whole number from {least} on, not {value!r}')
    return value


def _bytes(value: object, name: str) -> bytes | None:
    try:
        if value is None:
            return None
        if isinstance(value, str):
            return value.encode()
        if isinstance(value, dict) and set(value) == {"base64"}:
            return base64.b64decode(value["base64"], validate=True)
    except (ValueError, TypeError, binascii.Error):
        pass
    raise InvalidInputError(f'"{name}" is text, null, or {{"base64": "..."}}; not {value!r:.80}')
