"""Snappy and LZ4 written once more from their format descriptions, as simply as can be.

The tests hold logstore's compression against these: two libraries that share a mistake would agree
with each other, and not with this.
"""

from __future__ import annotations

import struct

XERIAL_HEADER = b"\x82SNAPPY\x00" + struct.pack(">ii", 1, 1)


def _unsigned_varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


# snappy -------------------------------------------------------------------------------------


def snappy_literals(data: bytes) -> bytes:
    """A raw snappy block without any back references."""
    parts = [_unsigned_varint(len(data))]
    for start in range(0, len(data), 60):
        literal = data[start : start + 60]
        parts += (bytes([(len(literal) - 1) << 2]), literal)
    return b"".join(parts)


def snappy_decode(block: bytes) -> bytes:
    """What a raw snappy block holds."""
    size = shift = at = 0
    while True:
        size |= (block[at] & 0x7F) << shift
        shift += 7
        at += 1
        if block[at - 1] < 0x80:
            break
    out = bytearray()
    while at < len(block):
        tag = block[at]
        at += 1
        kind = tag & 3
        if kind == 0:
            length = tag >> 2
            if length >= 60:
                extra = length - 59
                length = int.from_bytes(block[at : at + extra], "little")
                at += extra
            out += block[at : at + length + 1]
            at += length + 1
            continue
        if kind == 1:
            length, distance = (tag >> 2 & 7) + 4, (tag >> 5) << 8 | block[at]
            at += 1
        else:
            width = 2 if kind == 2 else 4
            length = (tag >> 2) + 1
            distance = int.from_bytes(block[at : at + width], "little")
            at += width
        for _ in range(length):
            out.append(out[-distance])
    assert len(out) == size
    return bytes(out)


def xerial_decode(stream: bytes) -> bytes:
    """What a stream of the Java library holds."""
    assert stream.startswith(XERIAL_HEADER)
    out, at = b"", len(XERIAL_HEADER)
    while at < len(stream):
        (length,) = struct.unpack_from(">i", stream, at)
        out += snappy_decode(stream[at + 4 : at + 4 + length])
        at += 4 + length
    return out


def xerial_encode(*blocks: bytes) -> bytes:
    """A stream of the Java library around raw snappy blocks."""
    return XERIAL_HEADER + b"".join(struct.pack(">i", len(block)) + block for block in blocks)


# lz4 ----------------------------------------------------------------------------------------

LZ4_MAGIC = b"\x04\x22\x4d\x18"
END_MARK = bytes(4)


def xxh32(data: bytes) -> int:
    """XXH32 with the seed 0: what an LZ4 frame protects its header and its blocks with."""
    p1, p2, p3, p4, p5 = 2654435761, 2246822519, 3266489917, 668265263, 374761393
    mask = 0xFFFFFFFF

    def turned(word: int, bits: int) -> int:
        word &= mask
        return (word << bits | word >> (32 - bits)) & mask

    stripes, words = len(data) // 16, len(data) // 4
    h = p5
    if stripes:
        lanes = [p1 + p2, p2, 0, -p1]
        for stripe in struct.iter_unpack("<4I", data[: stripes * 16]):
            lanes = [
                turned(lane + word * p2, 13) * p1 for lane, word in zip(lanes, stripe, strict=True)
            ]
        h = sum(turned(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True))
    h += len(data)
    for (word,) in struct.iter_unpack("<I", data[stripes * 16 : words * 4]):
        h = turned(h + word * p3, 17) * p4
    for byte in data[words * 4 :]:
        h = turned(h + byte * p5, 11) * p1
    h &= mask
    h = (h ^ h >> 15) * p2 & mask
    h = (h ^ h >> 13) * p3 & mask
    return h ^ h >> 16


def lz4_frame(
    *blocks: bytes, flags: int = 0x60, sizes: int = 0x40, extra: bytes = b"", stored: bool = False
) -> bytes:
    """An LZ4 frame around raw blocks; ``extra`` stands where a content size would."""
    descriptor = bytes([flags, sizes]) + extra
    parts = [LZ4_MAGIC, descriptor, bytes([xxh32(descriptor) >> 8 & 0xFF])]
    for block in blocks:
        parts += (struct.pack("<I", len(block) | (stored << 31)), block)
        if flags & 0x10:
            parts.append(struct.pack("<I", xxh32(block)))
    return b"".join((*parts, END_MARK))


def lz4_length(number: int) -> bytes:
    """The bytes behind a token whose four bits were not enough for a length."""
    full, rest = divmod(number, 255)
    return b"\xff" * full + bytes([rest])


def lz4_run(byte: bytes, count: int) -> bytes:
    """A raw LZ4 block of ``count`` equal bytes, as short as the format can say it."""
    # One literal, a match of all but six at distance 1, and the five literals that must end it.
    match = count - 6 - 4
    return b"\x1f" + byte + b"\x01\x00" + lz4_length(match - 15) + b"\x50" + byte * 5


def lz4_literals(data: bytes) -> bytes:
    """A raw LZ4 block without any matches."""
    if len(data) < 15:
        return bytes([len(data) << 4]) + data
    return b"\xf0" + lz4_length(len(data) - 15) + data


def lz4_block_decode(block: bytes) -> bytes:
    """What a raw LZ4 block holds."""
    out = bytearray()
    at = 0

    def length(start: int) -> int:
        nonlocal at
        if start == 15:
            while True:
                start += block[at]
                at += 1
                if block[at - 1] != 255:
                    break
        return start

    while True:
        token = block[at]
        at += 1
        count = length(token >> 4)
        out += block[at : at + count]
        at += count
        if at >= len(block):
            return bytes(out)
        distance = int.from_bytes(block[at : at + 2], "little")
        at += 2
        for _ in range(length(token & 15) + 4):
            out.append(out[-distance])


def lz4_frame_decode(frame: bytes) -> bytes:
    """What an LZ4 frame of the kind that Kafka allows holds."""
    assert frame.startswith(LZ4_MAGIC)
    flags = frame[4]
    assert flags & 0xE0 == 0x60, "version 1, independent blocks"
    assert not flags & 7, "no checksum of the content, no dictionary"
    end = 14 if flags & 8 else 6
    assert frame[end] == xxh32(frame[4:end]) >> 8 & 0xFF
    out, at = b"", end + 1
    while True:
        (word,) = struct.unpack_from("<I", frame, at)
        at += 4
        if word == 0:
            assert at == len(frame)
            return out
        size = word & 0x7FFFFFFF
        block = frame[at : at + size]
        out += block if word >> 31 else lz4_block_decode(block)
        at += size
        if flags & 0x10:
            assert struct.unpack_from("<I", frame, at) == (xxh32(block),)
            at += 4
