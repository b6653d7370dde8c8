"""Records that a share group has given up, in its dead-letter topic (Kafka's KIP-1191).

A letter has the record's key, value and headers, if these are to be copied, and headers that tell
where it comes from, by Kafka's names. It goes to the partition of the record's own number, or to
that number's remainder where the dead-letter topic has fewer.
"""

from __future__ import annotations

from collections.abc import Sequence

from logstore.errors import InvalidInputError
from logstore.log import PartitionLog
from logstore.queues.ledger_rows import Reason, Span
from logstore.segments.record import Header, Record
from logstore.shares.partition import SharePartition
from logstore.shares.record import ShareRecord

__all__ = ["append_letters", "letters_of"]

_CAUSES = {
    Reason.REJECTED: b"Offset rejected by client.",
    Reason.DELIVERY_LIMIT: b"Offset delivery count exceeded the threshold.",
}
"""Kafka's texts: programs compare them."""


def letters_of(
    group: str, level: SharePartition, span: Span, records: Sequence[ShareRecord]
) -> list[tuple[Record, Record]]:
    """For each offset of a dead span its letter, and the letter without a copy of the record. Of a
    record that is not among ``records``, since it is not to be copied, or the log has lost it, both
    are the same."""
    found = {record.offset: record for record in records}
    count = span.delivery_count + (span.reason == Reason.REJECTED)  # the last one counts, too
    letters = []
    for offset in range(span.first, span.end):
        context: list[Header] = [
            ("__dlq.errors.topic", level.topic.encode()),
            ("__dlq.errors.partition", b"%d" % level.number),
            ("__dlq.errors.offset", b"%d" % offset),
            ("__dlq.errors.group", group.encode()),
            ("__dlq.errors.delivery.count", b"%d" % count),
            ("__dlq.errors.message", _CAUSES[Reason(span.reason)]),
        ]
        bare = full = Record(headers=context)
        record = found.get(offset)
        if record is not None:
            full = Record(key=record.key, value=record.value, headers=[*record.headers, *context])
        letters.append((full, bare))
    return letters


def append_letters(log: PartitionLog, letters: Sequence[tuple[Record, Record]]) -> None:
    """Append letters, to stable storage: as few batches as ``max_message_bytes`` allows, and
    without its copy what does not fit alone."""
    try:
        log.append([full for full, _ in letters], acks="all")
    except InvalidInputError:
        if len(letters) == 1:
            [(full, bare)] = letters
            if full is bare:
                raise
            log.append([bare], acks="all")
            return
        middle = len(letters) // 2
        append_letters(log, letters[:middle])
        append_letters(log, letters[middle:])
