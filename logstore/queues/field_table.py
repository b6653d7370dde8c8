"""Field tables: what the headers of a message and the arguments of a binding are made of.

Values are AMQP's own, by these types of Python (source: AMQP 0-9-1, section 4.2.5.5, with the type
letters that RabbitMQ's errata list, which every client of RabbitMQ uses)::

    t  bool             F  dict, with names of at most 255 bytes
    I  int, 32 bits     A  list
    l  int, 64 bits     S  str (what is no UTF-8 is read as bytes)
    d  float            x  bytes
    D  Decimal: up to 255 places, 32 bits
    T  datetime, aware, in whole seconds
    V  None

``b B s u i f``, other sizes of numbers, are read and never written. The same values have a form in
JSON, for definitions and for people: those that JSON has stand for themselves, others are an object
of one name that says what it is: ``{"base64": ...}``, ``{"decimal": ...}``, ``{"timestamp": ...}``,
``{"float": ...}``, and ``{"table": ...}`` around a table that would look like one of these.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from logstore.errors import FormatError, InvalidInputError

__all__ = ["MAX_DEPTH", "decode_table", "encode_table", "from_json", "to_json"]

MAX_NAME_BYTES = 255
"""The longest name in a table: a short string of AMQP."""
MAX_DEPTH = 32
"""How deep tables and lists may lie in one another."""

_INT32 = 1 << 31
_INT64 = 1 << 63
_MAX_PLACES = 255

_SIZE = struct.Struct(">I")
_PLAIN = {
    code: struct.Struct(">" + form)
    for code, form in zip(b"bBsuIilfd", ("b", "B", "h", "H", "i", "I", "q", "f", "d"), strict=True)
}
_INT, _LONG, _DOUBLE = (struct.Struct(">c" + form) for form in "iqd")
_DECIMAL = struct.Struct(">cBi")
_TIMESTAMP = struct.Struct(">cQ")


# Encoding -----------------------------------------------------------------------------------


def encode_table(table: Mapping[str, Any]) -> bytes:
    """The bytes of a table, without the four of their length that AMQP puts in front.

    Raises InvalidInputError, which names the entry, for what is no value of AMQP.
    """
    return b"".join(_encode_entries(table, "", 0))


def _encode_entries(table: Mapping[str, Any], inside: str, depth: int) -> list[bytes]:
    if depth > MAX_DEPTH:
        raise InvalidInputError(f"{inside}: tables lie in one another more than {MAX_DEPTH} deep")
    parts: list[bytes] = []
    for name, value in table.items():
        if not isinstance(name, str):
            raise InvalidInputError(f"{inside}{name!r} is no name of a header: a str is")
        path = f"{inside}{name}"
        data = _encode_text(name, path)
        if len(data) > MAX_NAME_BYTES:
            raise InvalidInputError(
                f"the name of header {path:.80}... has {len(data)} bytes: at most {MAX_NAME_BYTES}"
            )
        parts += (bytes((len(data),)), data, _encode_value(value, path, depth))
    return parts


def _encode_text(text: str, path: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"header {path!r} is no text that UTF-8 can hold") from error


def _encode_value(value: Any, path: str, depth: int) -> bytes:
    if isinstance(value, str):
        data = _encode_text(value, path)
        return b"S" + _SIZE.pack(len(data)) + data
    if isinstance(value, bool):
        return b"t\1" if value else b"t\0"
    if isinstance(value, int):
        if -_INT32 <= value < _INT32:
            return _INT.pack(b"I", value)
        if -_INT64 <= value < _INT64:
            return _LONG.pack(b"l", value)
        raise InvalidInputError(f"header {path} = {value} is out of bounds: 64 bits")
    if value is None:
        return b"V"
    if isinstance(value, float):
        return _DOUBLE.pack(b"d", value)
    if isinstance(value, (bytes, bytearray)):
        return b"x" + _SIZE.pack(len(value)) + value
    if isinstance(value, Mapping):
        data = b"".join(_encode_entries(value, f"{path}.", depth + 1))
        return b"F" + _SIZE.pack(len(data)) + data
    if isinstance(value, (list, tuple)):
        if depth >= MAX_DEPTH:
            raise InvalidInputError(f"{path}: lists lie in one another more than {MAX_DEPTH} deep")
        data = b"".join(
            _encode_value(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)
        )
        return b"A" + _SIZE.pack(len(data)) + data
    if isinstance(value, Decimal):
        return _encode_decimal(value, path)
    if isinstance(value, datetime):
        return _TIMESTAMP.pack(b"T", _seconds(value, path))
    raise InvalidInputError(
        f"header {path} is {type(value).__name__}, which AMQP has no type for: bool, int, float, "
        "Decimal, str, bytes, datetime, dict, list or None"
    )


def _encode_decimal(value: Decimal, path: str) -> bytes:
    exponent = value.as_tuple().exponent
    if isinstance(exponent, int) and -_MAX_PLACES <= exponent <= 10:
        places = max(0, -exponent)
        number = int(value.scaleb(places)) if value else 0
        if -_INT32 <= number < _INT32 and Decimal(number).scaleb(-places) == value:
            return _DECIMAL.pack(b"D", places, number)
    raise InvalidInputError(
        f"header {path} = {value} is out of bounds: a decimal has 32 bits, and up to "
        f"{_MAX_PLACES} of its places behind the point"
    )


def _seconds(value: datetime, path: str) -> int:
    if value.tzinfo is None:
        raise InvalidInputError(f"header {path} = {value} has no time zone")
    if value.microsecond:
        raise InvalidInputError(
            f"header {path} = {value} is no whole second, as AMQP's timestamps are"
        )
    seconds = int(value.timestamp())
    if seconds < 0:
        raise InvalidInputError(f"header {path} = {value} is before 1970")
    return seconds


# Decoding -----------------------------------------------------------------------------------


def decode_table(data: bytes) -> dict[str, Any]:
    """The opposite of ``encode_table``; raises FormatError, with the position in ``data``."""
    try:
        return _decode_entries(data, 0, len(data), 0)
    except (IndexError, struct.error) as error:
        raise FormatError("a field table ends early", position=len(data)) from error


def _decode_entries(data: bytes, position: int, end: int, depth: int) -> dict[str, Any]:
    if depth > MAX_DEPTH:
        raise FormatError(f"field tables lie more than {MAX_DEPTH} deep", position=position)
    table = {}
    while position < end:
        start = position + 1
        position = start + data[position]
        name = data[start:position].decode("utf-8", "surrogateescape")
        table[name], position = _decode_value(data, position, end, depth)
    if position != end:
        raise FormatError("a field table ends early", position=position, expected=end)
    return table


def _decode_value(data: bytes, position: int, end: int, depth: int) -> tuple[Any, int]:
    code = data[position]
    position += 1
    plain = _PLAIN.get(code)
    if plain is not None:
        return plain.unpack_from(data, position)[0], position + plain.size
    if code in b"SxFA":
        start = position + 4
        stop = start + _SIZE.unpack_from(data, position)[0]
        if stop > end:
            raise FormatError("a field's value is longer than its table", position=position)
        if code == ord("F"):
            return _decode_entries(data, start, stop, depth + 1), stop
        if code == ord("A"):
            return _decode_list(data, start, stop, depth + 1), stop
        value = data[start:stop]
        return (_text(value) if code == ord("S") else value), stop
    if code == ord("t"):
        return data[position] != 0, position + 1
    if code == ord("V"):
        return None, position
    if code == ord("T"):
        _, seconds = _TIMESTAMP.unpack_from(data, position - 1)
        try:
            return datetime.fromtimestamp(seconds, UTC), position + 8
        except (ValueError, OverflowError, OSError) as error:
            raise FormatError(
                "a timestamp is too late", position=position, found=seconds
            ) from error
    if code == ord("D"):
        _, places, number = _DECIMAL.unpack_from(data, position - 1)
        return Decimal((number < 0, tuple(map(int, str(abs(number)))), -places)), position + 5
    raise FormatError("a field's type is unknown", position=position - 1, found=chr(code))


def _decode_list(data: bytes, position: int, end: int, depth: int) -> list[Any]:
    if depth > MAX_DEPTH:
        raise FormatError(f"lists lie more than {MAX_DEPTH} deep", position=position)
    items = []
    while position < end:
        item, position = _decode_value(data, position, end, depth)
        items.append(item)
    if position != end:
        raise FormatError("a list of fields ends early", position=position, expected=end)
    return items


def _text(data: bytes) -> str | bytes:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


# JSON ---------------------------------------------------------------------------------------

_TAGS = frozenset(("base64", "decimal", "timestamp", "float", "table"))


def to_json(value: Any) -> Any:
    """A value that ``encode_table`` takes, as JSON has it; a table comes out as an object."""
    if isinstance(value, Mapping):
        table = {name: to_json(item) for name, item in value.items()}
        return {"table": table} if len(table) == 1 and _TAGS & table.keys() else table
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, (bytes, bytearray)):
        return {"base64": base64.b64encode(value).decode("ascii")}
    if isinstance(value, Decimal):
        return {"decimal": str(value)}
    if isinstance(value, datetime):
        return {"timestamp": int(value.timestamp())}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    return value


def from_json(value: Any) -> Any:
    """The opposite; raises InvalidInputError for an object that is not what its name says."""
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1 and _TAGS & value.keys():
        ((tag, content),) = value.items()
        try:
            return _UNTAG[tag](content)
        except (
            ValueError,
            TypeError,
            AttributeError,
            OverflowError,
            OSError,
            binascii.Error,
            InvalidOperation,
        ) as error:
            raise InvalidInputError(f"{value!r:.80} is no {tag}") from error
    return {name: from_json(item) for name, item in value.items()}


_UNTAG: dict[str, Callable[[Any], Any]] = {
    "base64": lambda text: base64.b64decode(text, validate=True),
    "decimal": Decimal,
    "timestamp": lambda seconds: datetime.fromtimestamp(seconds, UTC),
    "float": float,
    "table": lambda table: {name: from_json(item) for name, item in table.items()},
}
