"""Every codec against itself, against independent encoders and decoders, and against bombs."""

from __future__ import annotations

import gzip
import os
import random
import struct
import subprocess
import sys
import zlib
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from logstore.segments.compression import Codec, compress, decompress
from logstore.segments.errors import FormatError, InvalidInputError, LimitError

from . import independent_codecs as independent
from .strategies import examples, mutated, seeds

COMPRESSING = [codec for codec in Codec if codec is not Codec.NONE]
each_codec = pytest.mark.parametrize("codec", COMPRESSING, ids=lambda codec: codec.label)

WORDS = b"the log is the truth; indexes are disposable. "
PAYLOADS = {
    "empty": b"",
    "one byte": b"x",
    "text": WORDS * 40,
    "zeros": bytes(300_000),
    "noise": random.Random(4).randbytes(100_000),
    "block of 32 KiB": WORDS * 712 + WORDS[:16],
    "block of 64 KiB": random.Random(5).randbytes(1 << 16),
    "several blocks": (WORDS + random.Random(6).randbytes(50)) * 2000,
}
each_payload = pytest.mark.parametrize("name", PAYLOADS)


# round trips --------------------------------------------------------------------------------


@examples(40)
@given(st.sampled_from(list(Codec)), st.binary(max_size=3000), st.integers(1, 40))
def test_compress_then_decompress_is_the_identity(codec: Codec, data: bytes, times: int) -> None:
    assert decompress(codec, compress(codec, data * times)) == data * times


@each_codec
@each_payload
def test_a_payload_of_every_kind_survives(codec: Codec, name: str) -> None:
    assert decompress(codec, compress(codec, PAYLOADS[name])) == PAYLOADS[name]


@pytest.mark.parametrize(
    ("codec", "levels"),
    [(Codec.GZIP, (1, 9)), (Codec.LZ4, (1, 12)), (Codec.ZSTD, (-131072, -1, 22))],
    ids=lambda value: value.label if isinstance(value, Codec) else "",
)
def test_every_level_can_be_read_and_levels_out_of_bounds_are_refused(
    codec: Codec, levels: tuple[int, ...]
) -> None:
    for level in levels:
        assert decompress(codec, compress(codec, WORDS * 100, level)) == WORDS * 100
    for level in (levels[0] - 1, levels[-1] + 1):
        with pytest.raises(InvalidInputError, match=f"level {level} is out of bounds"):
            compress(codec, WORDS, level)


@pytest.mark.parametrize("codec", [Codec.NONE, Codec.SNAPPY], ids=lambda codec: codec.label)
def test_a_level_is_refused_where_the_codec_has_none(codec: Codec) -> None:
    with pytest.raises(InvalidInputError, match="has no compression levels"):
        compress(codec, WORDS, 3)


def test_codecs_are_found_by_the_names_that_kafka_gives_them() -> None:
    assert [Codec.named(codec.label) for codec in Codec] == list(Codec)
    assert [codec.label for codec in Codec] == ["none", "gzip", "snappy", "lz4", "zstd"]
    with pytest.raises(InvalidInputError, match="no codec is called 'brotli'; there are none,"):
        Codec.named("brotli")


# what others read of ours -------------------------------------------------------------------


@each_payload
def test_an_independent_decoder_reads_our_gzip(name: str) -> None:
    assert gzip.decompress(compress(Codec.GZIP, PAYLOADS[name])) == PAYLOADS[name]


@pytest.mark.parametrize("name", ["empty", "one byte", "text", "noise", "block of 32 KiB"])
def test_an_independent_decoder_reads_our_snappy(name: str) -> None:
    assert independent.xerial_decode(compress(Codec.SNAPPY, PAYLOADS[name])) == PAYLOADS[name]


@pytest.mark.parametrize("name", ["empty", "one byte", "text", "noise", "block of 64 KiB"])
def test_an_independent_decoder_reads_our_lz4(name: str) -> None:
    assert independent.lz4_frame_decode(compress(Codec.LZ4, PAYLOADS[name])) == PAYLOADS[name]


@each_payload
def test_our_zstd_is_one_frame_that_states_its_size(name: str) -> None:
    frame = compress(Codec.ZSTD, PAYLOADS[name])
    assert zstandard.frame_content_size(frame) == len(PAYLOADS[name])
    assert zstandard.ZstdDecompressor().decompress(frame) == PAYLOADS[name]


# what we read of others ---------------------------------------------------------------------


@each_payload
def test_gzip_of_an_independent_encoder_is_read(name: str) -> None:
    data = PAYLOADS[name]
    assert decompress(Codec.GZIP, gzip.compress(data, 9)) == data
    assert decompress(Codec.GZIP, gzip.compress(data[:10]) + gzip.compress(data[10:])) == data


@pytest.mark.parametrize("name", ["empty", "one byte", "text", "noise"])
def test_snappy_of_an_independent_encoder_is_read(name: str) -> None:
    data = PAYLOADS[name]
    halves = independent.snappy_literals(data[:500]), independent.snappy_literals(data[500:])
    assert decompress(Codec.SNAPPY, independent.xerial_encode(*halves)) == data
    assert decompress(Codec.SNAPPY, independent.snappy_literals(data)) == data  # no framing at all


def test_a_snappy_stream_of_another_version_of_the_framing_is_read() -> None:
    stream = b"\x82SNAPPY\x00" + struct.pack(">ii", 2, 1)
    block = independent.snappy_literals(WORDS)
    assert decompress(Codec.SNAPPY, stream + struct.pack(">i", len(block)) + block) == WORDS


@pytest.mark.parametrize("flags", [0x60, 0x70, 0x68, 0x78], ids=hex)
def test_lz4_of_an_independent_encoder_is_read(flags: int) -> None:
    extra = struct.pack("<Q", 1046) if flags & 8 else b""
    blocks = independent.lz4_literals(WORDS), independent.lz4_run(b"z", 1000)
    frame = independent.lz4_frame(*blocks, flags=flags, extra=extra)
    assert decompress(Codec.LZ4, frame) == WORDS + b"z" * 1000
    stored = independent.lz4_frame(WORDS, b"", WORDS, flags=flags, extra=extra, stored=True)
    assert decompress(Codec.LZ4, stored) == WORDS * 2


def test_an_lz4_frame_with_a_content_checksum_is_read() -> None:
    frame = independent.lz4_frame(WORDS, flags=0x64, stored=True) + b"\x01\x02\x03\x04"
    assert decompress(Codec.LZ4, frame) == WORDS


def test_the_wrong_header_checksum_of_message_format_0_is_no_obstacle() -> None:
    frame = bytearray(compress(Codec.LZ4, WORDS))
    end_of_header = 14 if frame[4] & 8 else 6
    frame[end_of_header] ^= 0xFF
    assert decompress(Codec.LZ4, bytes(frame)) == WORDS


@pytest.mark.parametrize("sizes", [0x40, 0x50, 0x60, 0x70], ids=hex)
def test_every_block_size_of_lz4_is_read_up_to_its_last_byte(sizes: int) -> None:
    size = 1 << (8 + 2 * (sizes >> 4))
    full = independent.lz4_run(b"q", size)
    assert decompress(Codec.LZ4, independent.lz4_frame(full, sizes=sizes)) == b"q" * size
    over = independent.lz4_frame(independent.lz4_run(b"q", size + 1), sizes=sizes)
    with pytest.raises(FormatError):
        decompress(Codec.LZ4, over)


def test_zstd_frames_without_a_size_and_several_in_a_row_are_read() -> None:
    stream = zstandard.ZstdCompressor().compressobj()
    first = stream.compress(WORDS * 9) + stream.flush()
    assert zstandard.frame_content_size(first) == -1
    assert decompress(Codec.ZSTD, first + zstandard.compress(b"more")) == WORDS * 9 + b"more"


# what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (0x40, "linked blocks"),
        (0x20, "version 0"),
        (0xA0, "version 2"),
        (0x61, "a dictionary"),
        (0x62, "a reserved bit"),
    ],
)
def test_an_lz4_frame_of_a_kind_that_kafka_does_not_write_is_refused(flags: int, why: str) -> None:
    frame = independent.lz4_frame(WORDS, flags=flags, stored=True)
    with pytest.raises(FormatError, match="of a kind that Kafka does not allow") as caught:
        decompress(Codec.LZ4, frame)
    assert caught.value.position == 4


def test_an_lz4_frame_with_an_unknown_block_size_or_without_its_magic_is_refused() -> None:
    with pytest.raises(FormatError, match="block size"):
        decompress(Codec.LZ4, independent.lz4_frame(WORDS, sizes=0x30, stored=True))
    for garbage in (b"", b"\x04\x22\x4d", WORDS):
        with pytest.raises(FormatError, match="magic"):
            decompress(Codec.LZ4, garbage)


def test_an_lz4_block_longer_than_its_frame_allows_is_refused() -> None:
    with pytest.raises(FormatError, match="block's length is wrong"):
        decompress(Codec.LZ4, independent.lz4_frame(bytes(65537), stored=True))


@pytest.mark.parametrize("codec", [Codec.GZIP, Codec.LZ4], ids=lambda codec: codec.label)
def test_a_stream_cut_at_any_byte_is_refused(codec: Codec) -> None:
    stream = compress(codec, WORDS * 30)
    for size in range(1, len(stream)):
        with pytest.raises(FormatError):
            decompress(codec, stream[:size])


@pytest.mark.parametrize("codec", [Codec.SNAPPY, Codec.ZSTD], ids=lambda codec: codec.label)
def test_a_cut_stream_without_an_end_mark_is_refused_or_gives_a_beginning(codec: Codec) -> None:
    data = PAYLOADS["several blocks"][:100_000]
    stream = compress(codec, data)
    for size in [*range(60), *range(60, len(stream), 499)]:
        try:
            assert data.startswith(decompress(codec, stream[:size]))
        except FormatError:
            continue


@pytest.mark.parametrize("length", [-1, 1 << 30])
def test_a_snappy_block_with_an_impossible_length_is_refused(length: int) -> None:
    stream = independent.XERIAL_HEADER + struct.pack(">i", length) + b"1234"
    with pytest.raises(FormatError, match="block's length is wrong") as caught:
        decompress(Codec.SNAPPY, stream)
    assert (caught.value.position, caught.value.found) == (16, length)


@each_codec
@pytest.mark.parametrize("garbage", [b"\5", b"garbage" * 9, b"\xff" * 70], ids=["5", "text", "ff"])
def test_garbage_is_refused(codec: Codec, garbage: bytes) -> None:
    with pytest.raises(FormatError):
        decompress(codec, garbage)


@examples(60)
@given(st.sampled_from(COMPRESSING), seeds)
def test_damaged_streams_raise_nothing_but_format_errors(codec: Codec, seed: int) -> None:
    rng = random.Random(seed)
    stream = compress(codec, WORDS * rng.randint(1, 9))
    for _ in range(40):
        damaged = mutated(stream, rng)
        try:
            assert len(decompress(codec, damaged, max_bytes=1 << 20)) <= 1 << 20
        except FormatError:
            continue


# bombs --------------------------------------------------------------------------------------


@each_codec
def test_exactly_the_bound_is_allowed_and_one_byte_more_is_not(codec: Codec) -> None:
    for data in (WORDS * 3000, b"x"):
        stream = compress(codec, data)
        assert decompress(codec, stream, max_bytes=len(data)) == data
        with pytest.raises(LimitError, match=f"the {codec.label} stream is too large"):
            decompress(codec, stream, max_bytes=len(data) - 1)


@each_codec
def test_a_bound_of_nothing_lets_nothing_through(codec: Codec) -> None:
    assert decompress(codec, compress(codec, b""), max_bytes=0) == b""
    with pytest.raises(LimitError):
        decompress(codec, compress(codec, b"x"), max_bytes=0)


def test_a_zstd_frame_that_wants_too_large_a_window_is_refused() -> None:
    # Magic, a descriptor without a size, the window of 2^31 bytes, one empty last block.
    frame = bytes.fromhex("28b52ffd") + b"\x00" + bytes([21 << 3]) + b"\x01\x00\x00"
    with pytest.raises(FormatError):
        decompress(Codec.ZSTD, frame)


BOMBS = """
import struct, sys, zlib
import zstandard
from logstore.segments.compression import Codec, compress, decompress
from logstore.segments.errors import LimitError

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

GIB = 1 << 30
def deflated():
    packer = zlib.compressobj(1, wbits=31)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(256)) + packer.flush()
def frame():
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(1024)) + packer.flush()
def claims_a_gibibyte():
    return b"\\x80\\x80\\x80\\x80\\x04" + b"\\x00x"
run = b"\\x1f\\x00\\x01\\x00" + b"\\xff" * 16446 + b"\\x50" + b"\\x50" + bytes(5)
block = struct.pack("<I", len(run)) + run
bombs = {
    Codec.GZIP: [deflated()],
    Codec.ZSTD: [frame()],
    Codec.SNAPPY: [
        claims_a_gibibyte(),
        b"\\x82SNAPPY\\0" + struct.pack(">iii", 1, 1, 7) + claims_a_gibibyte(),
    ],
    Codec.LZ4: [b"\\x04\\x22\\x4d\\x18\\x60\\x70\\x00" + block * 256 + bytes(4)],
}
for codec, streams in bombs.items():
    decompress(codec, compress(codec, b"warm"))
before = peak()
for codec, streams in bombs.items():
    for stream in streams:
        try:
            decompress(codec, stream, max_bytes=4 << 20)
        except LimitError:
            print(codec.label, len(stream) >> 10, "KiB refused")
print((peak() - before) >> 10)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="no /proc to read a peak from")
def test_bombs_of_a_gibibyte_are_refused_without_filling_the_memory() -> None:
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    done = subprocess.run(
        [sys.executable, "-c", BOMBS],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *refused, grown_mebibytes = done.stdout.splitlines()
    assert [line.split()[0] for line in refused] == ["gzip", "zstd", "snappy", "snappy", "lz4"]
    assert int(grown_mebibytes) < 48


def test_the_gzip_trailer_is_checked() -> None:
    stream = bytearray(compress(Codec.GZIP, WORDS))
    assert struct.unpack("<I", stream[-8:-4])[0] == zlib.crc32(WORDS)
    stream[-5] ^= 1
    with pytest.raises(FormatError, match="the gzip stream is broken"):
        decompress(Codec.GZIP, bytes(stream))


# what is no codec ---------------------------------------------------------------------------


@pytest.mark.parametrize("number", [5, 9, 16, -1, True, None, "zstd", 1.0])
def test_what_is_no_codec_is_refused(number: Any) -> None:
    """A number that the attributes cannot hold would come back as another codec, or as a flag."""
    for function in (compress, decompress):
        with pytest.raises(InvalidInputError, match=r"is no codec: Codec\.NONE, "):
            function(number, b"data")


@each_codec
def test_a_codecs_plain_number_stands_for_it(codec: Codec) -> None:
    number: Any = int(codec)
    assert decompress(codec, compress(number, WORDS)) == WORDS
    assert decompress(number, compress(codec, WORDS)) == WORDS
