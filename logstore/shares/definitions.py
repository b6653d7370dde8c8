"""What a share group is: its name, and the options that were set for it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple

from logstore.definitions import broken

__all__ = [
    "SHARE_GROUP_PREFIX",
    "ShareGroupDefinition",
    "share_group_fields",
    "share_group_from",
    "share_group_key",
]

SHARE_GROUP_PREFIX = "share-group/"


class ShareGroupDefinition(NamedTuple):
    """A share group."""

    group_id: uuid.UUID
    name: str
    config: Mapping[str, Any]
    """The options that were set for it (``ShareGroupConfig``)."""


def share_group_key(group_id: uuid.UUID) -> str:
    """The key of a share group's definition."""
    return SHARE_GROUP_PREFIX + group_id.hex


def share_group_fields(group: ShareGroupDefinition) -> dict[str, Any]:
    """A share group's definition as JSON's objects."""
    return {"name": group.name, "config": dict(group.config)}


def share_group_from(key: str, fields: Mapping[str, Any], path: str) -> ShareGroupDefinition:
    """The opposite; raises FormatError, which names ``path``."""
    try:
        group = ShareGroupDefinition(
            uuid.UUID(hex=key.removeprefix(SHARE_GROUP_PREFIX)), fields["name"], fields["config"]
        )
        if not (isinstance(group.name, str) and isinstance(group.config, dict)):
            raise TypeError(f"name={group.name!r:.80}, config={group.config!r:.80}")
    except (ValueError, KeyError, TypeError) as error:
        raise broken(key, path, error) from error
    return group
