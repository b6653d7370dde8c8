"""What is to be done when."""

from __future__ import annotations

from logstore.queues.agenda import Agenda
from logstore.queues.ledger_rows import NEVER


def test_the_earliest_time_of_each_counts_and_is_taken_once() -> None:
    agenda: Agenda[str] = Agenda()
    assert agenda.next_ms == NEVER
    assert agenda.note(b"q", "q", 50)
    assert not agenda.note(b"r", "r", 60)
    assert agenda.note(b"r", "r", 40)
    assert not agenda.note(b"q", "q", 70)  # it is looked at before
    assert agenda.next_ms == 40
    assert agenda.take(39) == []
    assert agenda.take(50) == ["r", "q"]
    assert (agenda.take(1000), agenda.next_ms) == ([], NEVER)


def test_what_was_forgotten_does_not_come() -> None:
    agenda: Agenda[str] = Agenda()
    for key, due in ((b"q", 10), (b"r", 20)):
        agenda.note(key, key.decode(), due)
    agenda.forget(b"q")
    agenda.forget(b"nobody")
    assert agenda.next_ms == 20
    assert agenda.take(30) == ["r"]
