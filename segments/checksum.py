"""Checksums: CRC-32C for record batches, CRC-32 for messages of the old formats.

One decision, made once at import: the hardware implementation where it is compiled, otherwise
crcmod's tables. Measured on one machine: hardware 16 GB/s, crcmod's compiled tables 0.45 GB/s.
Setting the environment variable ``LOGSTORE_CRC32C=crcmod`` before the import forces the portable
one (the tests run both against each other).
"""

from __future__ import annotations

import os
import warnings
import zlib
from collections.abc import Callable
from functools import partial

__all__ = ["IMPLEMENTATION", "crc32", "crc32c", "crc32c_extend"]

_CASTAGNOLI = 0x11EDC6F41
"""The polynomial of CRC-32C, with its leading bit, as crcmod wants it."""


def _crcmod_extend() -> Callable[[int, bytes], int]:
    import crcmod

    function = crcmod.mkCrcFun(_CASTAGNOLI, initCrc=0, rev=True, xorOut=0xFFFFFFFF)

    def extend(crc: int, data: bytes) -> int:
        return int(function(data, crc))

    return extend


def _hardware_extend() -> Callable[[int, bytes], int] | None:
    try:
        with warnings.catch_warnings():
            # The package warns when it has only its own slow Python code; crcmod is faster then.
            warnings.simplefilter("ignore")
            import google_crc32c
    except ImportError:
        return None
    if google_crc32c.implementation != "c":
        return None
    extend: Callable[[int, bytes], int] = google_crc32c.extend
    return extend


def _choose() -> tuple[str, Callable[[int, bytes], int]]:
    if os.environ.get("LOGSTORE_CRC32C") != "crcmod":
        hardware = _hardware_extend()
        if hardware is not None:
            return "google-crc32c", hardware
    return "crcmod", _crcmod_extend()


IMPLEMENTATION, crc32c_extend = _choose()
"""The name of the chosen package, and ``crc32c_extend(crc, data)``: the CRC-32C of what ``crc``
covered with ``data`` (which must be ``bytes``) behind it."""


crc32c: Callable[[bytes], int] = partial(crc32c_extend, 0)
"""The CRC-32C (Castagnoli) of ``data``; a partial, for each batch needs it two or three times."""


def crc32(data: bytes) -> int:
    """The CRC-32 (IEEE 802.3) of ``data``, which the message formats 0 and 1 use."""
    return zlib.crc32(data)
