"""``store.json``: what makes a directory a store. Its version of the layout, and the store's id."""

from __future__ import annotations

import json
import uuid
from typing import Any

from logstore.errors import FormatError, UnsupportedFormatError
from logstore.segments.files import Files, read_bounded

__all__ = ["FORMAT_VERSION", "new_store_file", "read_store_file"]

FORMAT_VERSION = 1
"""The version of the store's layout; a store of another one is refused."""

_MAX_STORE_FILE_BYTES = 64 << 10


def new_store_file() -> bytes:
    """The bytes of the file for a store that gets an id of its own."""
    fields = {"format_version": FORMAT_VERSION, "store_id": str(uuid.uuid4())}
    return json.dumps(fields, indent=1).encode() + b"\n"


def read_store_file(files: Files, path: str) -> uuid.UUID:
    """The id of the store whose file is at ``path``.

    Raises FormatError where it is no such file, UnsupportedFormatError for another version.
    """
    data = read_bounded(files, path, _MAX_STORE_FILE_BYTES)
    try:
        fields: dict[str, Any] = json.loads(data)
        version, store_id = fields["format_version"], uuid.UUID(fields["store_id"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError("this is no store's description", path=path, found=error) from error
    if version != FORMAT_VERSION:
        raise UnsupportedFormatError(
            "the store was made by another version of logstore",
            path=path,
            expected=f"format version {FORMAT_VERSION}",
            found=version,
        )
    return store_id
