"""A consumer of a group as a process of its own: ``member.py STORE OPTIONS``, options as JSON.

It owns what it is given, and "reads" a record of each partition every few milliseconds: it commits
the next offset. It says so, a line each: ``<partition> <offset>`` after a commit, ``refused``,
``assigned 0,1``, ``revoked 0,1``, ``lost 0,1``. It leaves when its standard input ends.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time

import logstore
from logstore.groups.membership import Membership
from logstore.partitions import OffsetAndMetadata, TopicPartition

GROUP = "g"
TOPIC = "orders"


def say(text: str) -> None:
    """Tell the parent, in one write: what it has read, has been said as a whole."""
    os.write(1, text.encode() + b"\n")


def names(partitions: frozenset[TopicPartition]) -> str:
    return ",".join(str(partition.partition) for partition in sorted(partitions))


def consume(
    store: logstore.Store, member: Membership, positions: dict[TopicPartition, int]
) -> None:
    for partition, position in positions.items():
        offset = OffsetAndMetadata(position + 1)
        try:
            store.groups.commit(GROUP, {partition: offset}, membership=member)
        except (logstore.FencedMemberError, logstore.IllegalGenerationError):
            say("refused")
        else:
            positions[partition] = position + 1
            say(f"{partition.partition} {position + 1}")


def rebalance(
    store: logstore.Store, member: Membership, positions: dict[TopicPartition, int]
) -> None:
    step = member.poll()
    if step is None:
        return
    for partition in step.revoke:
        positions.pop(partition)
    if step.lost:
        say(f"lost {names(step.revoke)}")
    elif step.revoke:
        say(f"revoked {names(step.revoke)}")
        member.revoked(step.revoke)
    if step.assigned:
        for partition, committed in store.groups.committed(GROUP, step.assigned).items():
            positions[partition] = 0 if committed is None else committed.offset
        say(f"assigned {names(step.assigned)}")


def main(path: str, options: str) -> None:
    end = threading.Event()

    def wait_for_the_end() -> None:
        os.read(0, 1)
        end.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    with logstore.open(path) as store:
        member = store.groups.join(GROUP, topics=lambda: [TOPIC], **json.loads(options))
        positions: dict[TopicPartition, int] = {}
        while not end.is_set():
            consume(store, member, positions)
            rebalance(store, member, positions)
            time.sleep(0.005)
    say("left")


if __name__ == "__main__":
    main(*sys.argv[1:])
