"""What the tests of exchanges share: files of another run of the machine, what a queue's logs hold,
processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from logstore import Store
from logstore.queues.properties import Envelope, from_record
from logstore.queues.queue_face import Queue
from logstore.segments.files import DiskFiles

ROOT = Path(__file__).resolve().parents[2]


class BootFiles(DiskFiles):
    """The disk, in a run of the machine that is given."""

    def __init__(self, boot: str) -> None:
        self.boot = boot

    def boot_id(self) -> str:
        return self.boot


def stored(store: Store, queue: Queue | str, level: int = 0) -> list[Envelope]:
    """The messages in a queue's log, whoever has taken them."""
    definition = (
        store.queue(queue, passive=True).definition
        if isinstance(queue, str)
        else (queue.definition)
    )
    name = f"{definition.queue_id.hex}-{level}"
    if not os.path.isdir(os.path.join(store.path, "queues", name)):
        return []
    log = store.queues._opened.open_log(definition, level)
    found = []
    offset = log.log_start_offset
    while (fetch := log.read(offset)).data:
        found += [from_record(record) for record in fetch.records()]
        offset = fetch.next_offset
    return found


def bodies(store: Store, queue: Queue | str, level: int = 0) -> list[bytes]:
    """Their bodies."""
    return [envelope.body for envelope in stored(store, queue, level)]


def queue_directories(store: Store) -> list[str]:
    """What lies in the directory of the queues' logs."""
    top = Path(store.path) / "queues"
    return sorted(entry.name for entry in top.iterdir()) if top.is_dir() else []


def start_script(script: str, *arguments: object) -> subprocess.Popen[bytes]:
    """Start Python code in a process of its own; its input and output are to be talked to."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        cwd=ROOT,
    )
