"""The checksums against published values, and the two implementations of one against each other."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import crcmod.predefined
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logstore.segments import checksum

from .strategies import examples

# From RFC 3720, appendix B.4, and the check value of the CRC catalogues.
CRC32C_VECTORS = {
    b"": 0,
    b"123456789": 0xE3069283,
    bytes(32): 0x8A9136AA,
    b"\xff" * 32: 0x62A8AB43,
    bytes(range(32)): 0x46DD794E,
    bytes(range(31, -1, -1)): 0x113FDB5C,
}


def bitwise_crc32c(data: bytes) -> int:
    """The definition, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@pytest.mark.parametrize("data", CRC32C_VECTORS, ids=lambda data: f"{len(data)} bytes")
def test_crc32c_gives_the_published_values(data: bytes) -> None:
    assert checksum.crc32c(data) == CRC32C_VECTORS[data]


def test_crc32_gives_the_published_value() -> None:
    assert checksum.crc32(b"123456789") == 0xCBF43926
    assert checksum.crc32(b"") == 0


@examples(150)
@given(st.binary(max_size=200))
def test_crc32c_follows_its_definition(data: bytes) -> None:
    assert checksum.crc32c(data) == bitwise_crc32c(data)


@examples(150)
@given(st.binary(max_size=2000), st.binary(max_size=2000))
def test_extending_is_the_checksum_of_both_parts_together(first: bytes, second: bytes) -> None:
    assert checksum.crc32c_extend(checksum.crc32c(first), second) == checksum.crc32c(first + second)


@pytest.mark.parametrize("size", [1, 7, 8, 63, 64, 65, 1023, 4096, 100_001, 1 << 20])
def test_the_chosen_implementation_agrees_with_crcmod(size: int) -> None:
    data = random.Random(size).randbytes(size)
    assert checksum.crc32c(data) == crcmod.predefined.mkPredefinedCrcFun("crc-32c")(data)


PROBE = """
import random, sys
from logstore.segments import checksum
rng = random.Random(20)
print(checksum.IMPLEMENTATION)
crc = 0
for size in (0, 1, 9, 64, 1000, 65537):
    data = rng.randbytes(size)
    crc = checksum.crc32c_extend(crc, data)
    print(checksum.crc32c(data), crc)
"""


def probe(**settings: str) -> list[str]:
    environment = {name: text for name, text in os.environ.items() if name != "LOGSTORE_CRC32C"}
    # The child finds logstore where this process found it, installed or not.
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROBE],
        env={**environment, "PYTHONPATH": path, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_both_implementations_give_the_same_checksums() -> None:
    default, *values = probe()
    portable, *portable_values = probe(LOGSTORE_CRC32C="crcmod")
    assert portable == "crcmod"
    assert values == portable_values
    assert default in ("google-crc32c", "crcmod")


def test_the_hardware_implementation_is_chosen_where_it_is_compiled() -> None:
    google_crc32c = pytest.importorskip("google_crc32c", exc_type=ImportError)
    expected = "google-crc32c" if google_crc32c.implementation == "c" else "crcmod"
    assert probe()[0] == expected


def test_crcmod_takes_over_where_the_hardware_package_is_missing() -> None:
    hidden = "import sys; sys.modules['google_crc32c'] = None\n"
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    environment = {name: text for name, text in os.environ.items() if name != "LOGSTORE_CRC32C"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", hidden + PROBE],
        env={**environment, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "crcmod"
