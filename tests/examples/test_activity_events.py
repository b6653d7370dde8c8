"""The activity events: each group sees everything, once, whatever the others do."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

from .scripts import load


def test_each_group_reads_everything_and_a_replay_begins_at_the_first_event(
    tmp_path: Path,
) -> None:
    example = load("activity_events")
    outcome = example.main(str(tmp_path / "store"))
    events = list(example.parsed(example.ACCESS_LOG.read_bytes()))
    decoded = [(v.decode(), when, example.json.loads(event)) for v, when, event in events]
    assert outcome.events == len(events)
    assert outcome.pages == Counter(event["page"] for _, _, event in decoded)
    statuses = Counter(event["status"] for _, _, event in decoded)
    assert outcome.errors == {status: n for status, n in statuses.items() if status >= 400}
    seen = defaultdict(list)
    last: dict[str, int] = {}
    visits = 0
    for visitor, when, event in decoded:
        seen[visitor].append(event["page"])
        visits += visitor not in last or when - last[visitor] > example.VISIT_MS
        last[visitor] = max(when, last.get(visitor, 0))
    # What a visitor does stands in one partition: each one's pages come in order.
    assert outcome.seen == seen
    assert outcome.visits == visits
    assert outcome.lags == {"pages": 0, "alerts": 0, "history": 0, "visits": 0}
