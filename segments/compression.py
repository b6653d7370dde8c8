"""The five codecs of Kafka's batches: none, gzip, snappy, lz4 and zstd.

Every decompressor is bounded: a batch of a few kilobytes that unpacks into gigabytes (a
*decompression bomb*) raises LimitError at ``max_bytes`` instead of filling the memory. How each
codec's stream is framed:

- gzip: a plain gzip stream (RFC 1952).
- snappy: the *xerial* framing of the Java library, a 16-byte header and then blocks of
  ``int32 length, raw snappy``; a bare raw-snappy block is read as well (some clients write it).
- lz4: an LZ4 frame with independent blocks (KIP-57). Message format 0 carries a wrong header
  checksum for historical reasons; the batch's own CRC covers those bytes, so it is not looked at.
- zstd: a plain zstd frame.
"""

from __future__ import annotations

import enum
import struct
import zlib
from collections.abc import Iterator

import cramjam
import zstandard

from logstore.segments.errors import FormatError, InvalidInputError, LimitError

__all__ = ["MAX_DECOMPRESSED_BYTES", "Codec", "compress", "decompress"]

MAX_DECOMPRESSED_BYTES = 256 << 20
"""The default bound on what one batch may decompress to: 256 MiB."""


class Codec(enum.IntEnum):
    """A codec and its number in the three lowest bits of a batch's attributes."""

    NONE = 0
    GZIP = 1
    SNAPPY = 2
    LZ4 = 3
    ZSTD = 4

    @classmethod
    def named(cls, name: str) -> Codec:
        """The codec called ``none``, ``gzip``, ``snappy``, ``lz4`` or ``zstd``."""
        try:
            return cls[name.upper()]
        except KeyError:
            known = ", ".join(codec.label for codec in cls)
            raise InvalidInputError(f"no codec is called {name!r}; there are {known}") from None

    @classmethod
    def checked(cls, codec: object) -> Codec:
        """``codec``, or the codec of that number; raises InvalidInputError for anything else."""
        if isinstance(codec, cls):
            return codec
        # Whatever fits no codec would reach a batch's attributes as another one, or as a flag.
        if type(codec) is int and 0 <= codec < len(cls):
            return cls(codec)
        known = ", ".join(f"Codec.{one.name}" for one in cls)
        raise InvalidInputError(f"{codec!r} is no codec: {known} are")

    @property
    def label(self) -> str:
        """The codec's name as configuration keys and clients spell it."""
        return self.name.lower()


_LEVELS = {Codec.GZIP: (1, 9, 6), Codec.LZ4: (1, 12, 1), Codec.ZSTD: (-131072, 22, 3)}
"""Lowest, highest and default level of the codecs that have levels.

Kafka's default for lz4 is 9; level 1 is several times faster for a few per cent of size, and an
embedded log has no network whose bytes it would save.
"""


def compress(codec: Codec, data: bytes, level: int | None = None) -> bytes:
    """``data`` compressed by ``codec``, framed as Kafka frames it.

    ``level`` is the codec's own (gzip 1 to 9, lz4 1 to 12, zstd up to 22); None is its default.
    Raises InvalidInputError for what is no codec, for a level out of bounds, or for any level with
    none and snappy.
    """
    codec = Codec.checked(codec)
    level = _checked_level(codec, level)
    if codec is Codec.NONE:
        return data
    if codec is Codec.GZIP:
        deflate = zlib.compressobj(level, wbits=_GZIP_WINDOW)
        return deflate.compress(data) + deflate.flush()
    if codec is Codec.SNAPPY:
        return b"".join(_xerial_parts(data))
    if codec is Codec.LZ4:
        frame = cramjam.lz4.Compressor(level=level, content_checksum=False, block_linked=False)
        frame.compress(data)
        return bytes(frame.finish())
    return zstandard.ZstdCompressor(level=level).compress(data)


def decompress(codec: Codec, data: bytes, *, max_bytes: int = MAX_DECOMPRESSED_BYTES) -> bytes:
    """What ``compress`` made ``data`` from.

    Raises LimitError when the result would be larger than ``max_bytes``, FormatError when ``data``
    is not a whole stream of this codec, and InvalidInputError for what is no codec.
    """
    codec = Codec.checked(codec)
    if codec is Codec.NONE:
        return data
    try:
        return _DECOMPRESSORS[codec](data, max_bytes)
    except (zlib.error, zstandard.ZstdError, cramjam.DecompressionError) as error:
        raise FormatError(
            f"the {codec.label} stream is broken",
            expected="a whole stream",
            found=str(error).strip() or type(error).__name__,
        ) from error


def _checked_level(codec: Codec, level: int | None) -> int:
    if codec not in _LEVELS:
        if level is not None:
            raise InvalidInputError(f"{codec.label} has no compression levels")
        return 0
    lowest, highest, default = _LEVELS[codec]
    if level is None:
        return default
    if not lowest <= level <= highest:
        raise InvalidInputError(
            f"{codec.label} level {level} is out of bounds: {lowest} to {highest}"
        )
    return level


def _bomb(codec: Codec, max_bytes: int) -> LimitError:
    return LimitError(
        f"the {codec.label} stream is too large",
        expected=f"at most {max_bytes} bytes decompressed",
        found="more",
    )


# gzip ---------------------------------------------------------------------------------------

_GZIP_PIECE_BYTES = 4 << 10
_GZIP_WINDOW = 31  # 15 bits of window, plus 16: with the gzip header and trailer


def _gunzip(data: bytes, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    room = max_bytes
    position = 0
    while position < len(data):  # a gzip stream may be several members, one behind the other
        member = zlib.decompressobj(wbits=_GZIP_WINDOW)
        # Fed piece by piece, since what a member leaves over is a copy each time.
        piece_size = _GZIP_PIECE_BYTES
        while not member.eof:
            if position >= len(data):
                raise FormatError(
                    "the gzip stream is broken", expected="its trailer", found="its end"
                )
            piece = data[position : position + piece_size]
            # One byte more than is allowed is asked for, so that too much can be told from enough.
            part = member.decompress(piece, room + 1)
            room -= len(part)
            if room < 0:
                raise _bomb(Codec.GZIP, max_bytes)
            parts.append(part)
            position += len(piece) - len(member.unused_data) - len(member.unconsumed_tail)
            piece_size *= 2
    return b"".join(parts)


# snappy -------------------------------------------------------------------------------------

_XERIAL_MAGIC = b"\x82SNAPPY\x00"
_XERIAL_HEADER = _XERIAL_MAGIC + struct.pack(">ii", 1, 1)  # version, oldest compatible version
_XERIAL_BLOCK_BYTES = 32 << 10
_INT32 = struct.Struct(">i")


def _xerial_parts(data: bytes) -> Iterator[bytes]:
    yield _XERIAL_HEADER
    for start in range(0, len(data), _XERIAL_BLOCK_BYTES):
        block = bytes(cramjam.snappy.compress_raw(data[start : start + _XERIAL_BLOCK_BYTES]))
        yield _INT32.pack(len(block))
        yield block


def _xerial_blocks(data: bytes) -> Iterator[bytes]:
    position = len(_XERIAL_HEADER)
    while position < len(data):
        if position + 4 > len(data):
            raise FormatError("the snappy stream ends inside a block's length", position=position)
        (length,) = _INT32.unpack_from(data, position)
        position += 4
        if not 0 <= length <= len(data) - position:
            raise FormatError(
                "a snappy block's length is wrong",
                position=position - 4,
                expected=f"0 to {len(data) - position}",
                found=length,
            )
        yield data[position : position + length]
        position += length


def _unsnap(data: bytes, max_bytes: int) -> bytes:
    blocks = _xerial_blocks(data) if data.startswith(_XERIAL_MAGIC) else iter((data,))
    parts: list[bytes] = []
    size = 0
    for block in blocks:
        # Raw snappy begins with its own decompressed size: known before anything is allocated.
        size += cramjam.snappy.decompress_raw_len(block)
        if size > max_bytes:
            raise _bomb(Codec.SNAPPY, max_bytes)
        parts.append(bytes(cramjam.snappy.decompress_raw(block)))
    return b"".join(parts)


# lz4 ----------------------------------------------------------------------------------------

_LZ4_MAGIC = b"\x04\x22\x4d\x18"
_LZ4_BLOCK_BYTES = {4: 64 << 10, 5: 256 << 10, 6: 1 << 20, 7: 4 << 20}
_LZ4_INDEPENDENT = 0x20
_LZ4_BLOCK_CHECKSUM = 0x10
_LZ4_CONTENT_SIZE = 0x08
_LZ4_RESERVED_AND_DICTIONARY = 0x03
_LZ4_STORED = 0x80000000
_UINT32_LE = struct.Struct("<I")


def _lz4_blocks(data: bytes) -> Iterator[tuple[bool, bytes, int]]:
    """The blocks of an LZ4 frame: whether it is stored as it is, its bytes, the largest size it
    may decompress to. Source: LZ4 frame format description 1.6."""
    if len(data) < 7 or not data.startswith(_LZ4_MAGIC):
        raise FormatError("an LZ4 frame does not begin with its magic", found=data[:4].hex())
    flags, sizes = data[4], data[5]
    if (
        flags >> 6 != 1
        or not flags & _LZ4_INDEPENDENT
        or flags & _LZ4_RESERVED_AND_DICTIONARY  # a dictionary's id would shift what follows
    ):
        raise FormatError(
            "the LZ4 frame is of a kind that Kafka does not allow",
            position=4,
            expected="version 1 with independent blocks and no dictionary",
            found=f"flags {flags:#04x}",
        )
    block_bytes = _LZ4_BLOCK_BYTES.get(sizes >> 4 & 7)
    if block_bytes is None:
        raise FormatError("an LZ4 frame's block size is unknown", position=5, found=sizes)
    position = 6 + (8 if flags & _LZ4_CONTENT_SIZE else 0) + 1  # the 1: the header's checksum
    while True:
        if position + 4 > len(data):
            raise FormatError("the LZ4 frame ends before its end mark", position=position)
        (word,) = _UINT32_LE.unpack_from(data, position)
        position += 4
        if word == 0:
            return
        length = word & ~_LZ4_STORED
        if not length <= min(block_bytes, len(data) - position):
            raise FormatError(
                "an LZ4 block's length is wrong",
                position=position - 4,
                expected=f"at most {min(block_bytes, len(data) - position)}",
                found=length,
            )
        yield bool(word & _LZ4_STORED), data[position : position + length], block_bytes
        position += length + (4 if flags & _LZ4_BLOCK_CHECKSUM else 0)


def _unlz4(data: bytes, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    scratch = bytearray()
    for stored, block, block_bytes in _lz4_blocks(data):
        if stored:
            part = block
        else:
            if not scratch:
                scratch = bytearray(block_bytes)
            length = cramjam.lz4.decompress_block_into(block, scratch)
            part = bytes(memoryview(scratch)[:length])
        size += len(part)
        if size > max_bytes:
            raise _bomb(Codec.LZ4, max_bytes)
        parts.append(part)
    return b"".join(parts)


# zstd ---------------------------------------------------------------------------------------

_ZSTD_CHUNK_BYTES = 1 << 20


def _unzstd(data: bytes, max_bytes: int) -> bytes:
    # A frame may claim any content size, and `decompress()` would allocate what it claims; a
    # stream allocates what really comes out. The window is bounded for the same reason: 128 MiB
    # is the reference decoder's own default bound. A stream that was cut short reads as a shorter
    # one here: the batch's CRC and its count of records catch that.
    reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(
        data, read_across_frames=True
    )
    parts: list[bytes] = []
    size = 0
    while part := reader.read(min(_ZSTD_CHUNK_BYTES, max_bytes - size + 1)):
        size += len(part)
        if size > max_bytes:
            raise _bomb(Codec.ZSTD, max_bytes)
        parts.append(part)
    return b"".join(parts)


_DECOMPRESSORS = {
    Codec.GZIP: _gunzip,
    Codec.SNAPPY: _unsnap,
    Codec.LZ4: _unlz4,
    Codec.ZSTD: _unzstd,
}
