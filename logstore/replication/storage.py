"""What a broker keeps on its disk beside the logs: who it is, and how far it knew of commits.

Three small files, with Kafka's names: ``meta.properties`` with an id of the directory, which is new
whenever the disk is empty (KIP-858); ``.kafka_cleanshutdown`` of a broker that was stopped in good
order; ``replication-offset-checkpoint`` with the high watermarks of a few seconds ago.
"""

from __future__ import annotations

import posixpath
import random
from collections.abc import Mapping

from logstore.replication.disk import Disk
from logstore.segments.filenames import parse_partition_directory
from logstore.segments.files import read_bounded, write_atomically

__all__ = ["BrokerStorage"]

_META = "meta.properties"
_CLEAN = ".kafka_cleanshutdown"
_OFFSETS = "replication-offset-checkpoint"
_MAX_BYTES = 1 << 20


class BrokerStorage:
    """The files of a broker on its disk."""

    def __init__(self, disk: Disk, node: int, rng: random.Random) -> None:
        """``rng`` makes ids of directories."""
        self.directory_id = ""
        """Known once it has begun."""
        self._files = disk.files
        self._node = node
        self._rng = rng
        self._offsets: dict[str, int] = {}
        """The checkpoint as it was found."""

    def begin(self) -> bool:
        """Read what there is, make what is missing, and say whether the broker was stopped in good
        order. From now on it was not, until :meth:`end`."""
        files = self._files
        if not files.exists(_META):
            identity = f"{self._rng.getrandbits(128):032x}"
            text = f"version=1\nnode.id={self._node}\ndirectory.id={identity}\n"
            write_atomically(files, _META, text.encode())
        fields = read_bounded(files, _META, _MAX_BYTES).decode().split()
        self.directory_id = dict(field.split("=", 1) for field in fields)["directory.id"]
        if files.exists(_OFFSETS):
            lines = read_bounded(files, _OFFSETS, _MAX_BYTES).decode().splitlines()
            for line in lines[2:]:
                topic, partition, offset = line.split(" ")
                self._offsets[f"{topic}-{partition}"] = int(offset)
        clean = files.exists(_CLEAN)
        if clean:
            files.remove(_CLEAN)
            files.sync_directory(".")
        return clean

    def end(self) -> None:
        """Note that all logs were closed in good order."""
        write_atomically(self._files, _CLEAN, b'{"version":0}\n')

    def partitions(self) -> list[str]:
        """The partitions that lie on the disk."""
        files = self._files
        return [
            name
            for name in files.names(".")
            if files.is_directory(name) and parse_partition_directory(name) is not None
        ]

    def high_watermark(self, name: str) -> int:
        """As the checkpoint says that was found; 0 where it says nothing."""
        return self._offsets.get(name, 0)

    def save_high_watermarks(self, offsets: Mapping[str, int]) -> None:
        """Write the checkpoint (``ReplicaManager.checkpointHighWatermarks``)."""
        lines = ["0", str(len(offsets))]
        for name, offset in offsets.items():
            topic, _, partition = name.rpartition("-")
            lines.append(f"{topic} {partition} {offset}")
        write_atomically(self._files, _OFFSETS, ("\n".join(lines) + "\n").encode())

    def remove(self, name: str) -> None:
        """Remove a partition's directory, if it is there."""
        files = self._files
        self._offsets.pop(name, None)
        if files.is_directory(name):
            for file in files.names(name):
                files.remove(posixpath.join(name, file))
            files.sync_directory(name)
            files.remove_directory(name)
