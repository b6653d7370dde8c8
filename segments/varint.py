"""Zigzag variable-length integers, as in the record format v2.

Seven bits to a byte, least significant group first; the high bit says that more follow. Zigzag
folds the sign into the lowest bit, so that small negative numbers stay short: 0, -1, 1, -2 are
stored as 0, 1, 2, 3. Kafka calls the 32-bit form *varint* and the 64-bit form *varlong*; both
are the same bytes where both can hold the number.

Source: Kafka protocol guide, "Protocol Primitive Types".
"""

from __future__ import annotations

from logstore.segments.errors import FormatError, TruncatedError

MAX_VARINT_BYTES = 5
"""Bytes of the longest 32-bit varint."""

MAX_VARLONG_BYTES = 10
"""Bytes of the longest 64-bit varlong."""

_MAX_SHIFT = 7 * (MAX_VARLONG_BYTES - 1)


def encode_unsigned(number: int) -> bytes:
    """The groups of seven bits of a number that is not negative."""
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def encode(number: int) -> bytes:
    """The zigzag varint of a signed number of up to 64 bits."""
    return encode_unsigned(number << 1 if number >= 0 else (-number << 1) - 1)


SMALL = [encode(number) for number in range(1 << 15)]
"""The varints of 0 to 32,767: nearly all that a record needs, so that encoding is a look-up."""


def decode(buffer: bytes, position: int) -> tuple[int, int]:
    """The number whose varint begins at ``position``, and the position after it.

    Raises TruncatedError where the buffer ends first, and FormatError where more than
    ``MAX_VARLONG_BYTES`` bytes claim to belong to one number or it has more than 64 bits.
    """
    raw = shift = 0
    start = position
    try:
        while True:
            group = buffer[position]
            position += 1
            raw |= (group & 0x7F) << shift
            if group < 0x80:
                break
            shift += 7
            if shift > _MAX_SHIFT:
                raise FormatError(
                    "a varint is too long",
                    position=start,
                    expected=f"at most {MAX_VARLONG_BYTES} bytes",
                    found="more",
                )
    except IndexError:
        raise TruncatedError("the bytes end inside a varint", position=start) from None
    if raw >> 64:
        raise FormatError("a varint does not fit into 64 bits", position=start, found=hex(raw))
    return (raw >> 1) ^ -(raw & 1), position
