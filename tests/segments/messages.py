"""Messages of formats 0 and 1, built from their description: logstore itself never writes them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

from logstore.segments.compression import Codec, compress


def _sized(data: bytes | None) -> bytes:
    return struct.pack(">i", -1) if data is None else struct.pack(">i", len(data)) + data


def message(
    offset: int,
    *,
    magic: int,
    key: bytes | None = None,
    value: bytes | None = None,
    timestamp: int = -1,
    attributes: int = 0,
) -> bytes:
    """One message, its CRC right."""
    covered = struct.pack(">bb", magic, attributes)
    if magic == 1:
        covered += struct.pack(">q", timestamp)
    covered += _sized(key) + _sized(value)
    body = struct.pack(">I", zlib.crc32(covered)) + covered
    return struct.pack(">qi", offset, len(body)) + body


def wrapper(
    offset: int,
    inner: Sequence[bytes],
    *,
    magic: int,
    codec: Codec,
    timestamp: int = -1,
    attributes: int = 0,
) -> bytes:
    """A message around ``inner``, compressed."""
    return message(
        offset,
        magic=magic,
        value=compress(codec, b"".join(inner)),
        timestamp=timestamp,
        attributes=attributes | codec,
    )
