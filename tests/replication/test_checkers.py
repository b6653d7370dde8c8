"""Each checker, on histories written by hand: what is right passes, what is wrong is found."""

from __future__ import annotations

import pytest

from logstore.replication.checkers.ending import Left, compare
from logstore.replication.history import ConsumerReset, Elected, Opened, Refused, Truncated
from tests.replication.story import P, Settings, Story


def led_by_0(settings: Settings | None = None, *, idempotent: bool = True) -> Story:
    story = Story(settings or Settings(), idempotent)
    story.elect(0, (0, 1, 2))
    return story


def test_a_clean_leader_change_breaks_no_rule() -> None:
    story = led_by_0()
    story.committed_everywhere("p1-01", "p1-02")
    story.append(0, "p1-03")  # not replicated, not acknowledged
    story.crash(0)
    story.elect(1, (1, 2))
    story.append(1, "p1-03", sequence=2)
    story.fetch(2, 1)
    story.commit(1, 3)
    story.truncate(0, 1)
    story.fetch(0, 1)
    story.isr(1, 2, 0)
    story.commit(2, 3)
    story.deliver(0, "p1-01", "p1-02", "p1-03")
    assert story.broken == []


def test_a_leader_without_a_committed_batch_breaks_the_promise() -> None:
    story = led_by_0()
    story.append(0, "p1-01")
    story.fetch(1, 0)
    story.commit(0, 1)  # broker 2 has not got it: the leader should have waited
    assert story.broken == ["in sync"]
    story.acknowledge(0, "p1-01")
    story.crash(0)
    story.elect(2, (2,))
    assert story.broken == ["in sync", "lost"]
    text = story.checkers.findings.violations[1].text
    assert "broker 2 leads without the batch 0..0 of epoch 0" in text
    assert "on every in-sync replica" in text


def test_an_unclean_election_loses_what_it_may_and_says_why() -> None:
    story = led_by_0(Settings(unclean_election=True, min_insync_replicas=1))
    story.committed_everywhere("p1-01")
    story.isr(0)
    base = story.append(0, "p1-02", "p1-03")
    story.commit(0, 3)
    story.acknowledge(base, "p1-02", "p1-03")
    story.crash(0)
    story.elect(1, (1,), clean=False)
    story.truncate(0, 1)
    assert story.broken == []
    left = Left(1, {1: ("p1-01",)})
    ending = compare(story.checks, left, story.checkers.findings, at_us=1000, in_order=True)
    assert story.broken == []
    assert ending.lost == 2
    (loss,) = ending.losses
    assert loss.record_ids == ("p1-02", "p1-03")
    assert loss.reasons == (
        "an unclean election took a replica that was not known to have all records",
    )
    assert [type(event).__name__ for event in loss.causes] == ["Crashed", "Elected"]


def test_an_unclean_election_that_is_not_allowed_is_found() -> None:
    story = led_by_0()
    story.elect(1, (1,), clean=False)
    assert story.broken == ["election"]


def test_the_last_leader_may_go_on_where_nobody_is_left_who_has_more() -> None:
    story = led_by_0()
    for broker in (0, 1, 2):
        story.lose_disk(broker)
    story.isr()
    story.elect(0, (0,), clean=False)
    assert story.broken == []


def test_a_clean_leader_comes_from_the_in_sync_set_or_the_eligible_replicas() -> None:
    story = led_by_0()
    story.isr(0, elr=(1,))
    story.elect(1, (1,))
    assert story.broken == []
    story.elect(2, (2,))
    assert story.broken == ["election"]


def test_who_was_elected_and_died_before_it_led_has_lost_nothing() -> None:
    story = led_by_0()
    story.committed_everywhere("p1-01")
    story.lose_disk(1)
    story.elect(1, (1, 2), leads=False)
    story.elect(2, (2,))
    assert story.broken == []
    story.elect(1, (1,))
    assert story.broken == ["election", "lost"]


def test_a_leader_that_was_deposed_uncleanly_commits_in_vain() -> None:
    story = led_by_0(Settings(unclean_election=True, min_insync_replicas=1))
    story.isr(0)
    story.elect(1, (1,), clean=False)
    base = story.append(0, "p1-01", epoch=0)  # it has not heard of it
    story.commit(0, 1, epoch=0)
    story.acknowledge(base, "p1-01", epoch=0)
    story.append(1, "p1-02", sequence=0)
    story.commit(1, 1)
    left = Left(1, {1: ("p1-02",)})
    ending = compare(story.checks, left, story.checkers.findings, at_us=1000, in_order=True)
    assert (ending.lost, story.broken) == (1, [])


def test_a_leader_that_has_not_heard_of_its_successor_is_told_of_with_that_election() -> None:
    story = led_by_0(Settings(acks=1), idempotent=False)
    story.elect(1, (1, 2))
    base = story.append(0, "p1-01", epoch=0)
    story.acknowledge(base, "p1-01", epoch=0)
    left = Left(1, {1: ()})
    ending = compare(story.checks, left, story.checkers.findings, at_us=1000, in_order=False)
    assert (ending.lost, story.broken) == (1, [])
    (loss,) = ending.losses
    assert loss.reasons == ("acks=1: only the leader had to have it, and another one was elected",)
    (elected,) = loss.causes
    assert isinstance(elected, Elected)
    assert (elected.leader, elected.leader_epoch) == (1, 1)


def test_an_answer_to_a_retry_is_about_the_batch_that_its_leader_has() -> None:
    story = led_by_0()
    story.elect(1, (0, 1, 2))
    story.append(1, "p1-01")
    story.fetch(2, 1)
    story.append(0, "p1-01", epoch=0)  # the old leader takes the same batch, in vain
    story.truncate(0, 0)
    story.fetch(0, 1)
    story.elect(2, (0, 1, 2))
    story.commit(2, 1)
    story.acknowledge(0, "p1-01")
    assert story.broken == []


def test_an_epoch_has_one_leader() -> None:
    story = led_by_0()
    story.elect(1, (0, 1, 2), epoch=0)
    assert story.broken == ["epoch"]


def test_only_the_leader_of_an_epoch_appends_in_it() -> None:
    story = led_by_0()
    story.elect(1, (0, 1, 2))
    story.append(0, "p1-01", epoch=0)  # it does not know yet: nothing wrong
    assert story.broken == []
    story.append(0, "p1-02", epoch=1)
    assert story.broken == ["leader"]


def test_the_in_sync_set_of_a_past_epoch_is_refused() -> None:
    story = led_by_0()
    story.elect(1, (0, 1, 2))
    story.isr(0, 1, epoch=0)
    assert story.broken == ["epoch"]


def test_a_follower_that_kept_what_its_leader_has_not_got_diverges() -> None:
    story = led_by_0()
    story.append(0, "p1-01")
    story.elect(1, (0, 1, 2))
    story.append(1, "p1-02", sequence=0)
    story.append(1, "p1-03", sequence=1)
    story.fetch(0, 1)  # behind its own p1-01, which it should have cut
    assert story.broken == ["divergence"]


def test_a_commit_behind_another_batch_than_the_committed_one_is_found() -> None:
    story = led_by_0(Settings(flush="page_cache"))
    story.committed_everywhere("p1-01")
    story.elect(1, (1, 2))
    story.truncate(1, 0, "forgot what it had")
    assert story.broken == ["lost"]


def test_a_high_watermark_above_the_log_is_found() -> None:
    story = led_by_0()
    story.append(0, "p1-01")
    story.fetch(1, 0)
    story.fetch(2, 0)
    story.commit(0, 2)
    assert story.broken == ["watermark"]


def test_what_is_committed_is_synced_on_every_in_sync_replica() -> None:
    for flush, expected in (("ack", ["unsynced"]), ("page_cache", [])):
        story = led_by_0(Settings(flush=flush))
        story.append(0, "p1-01")
        story.fetch(1, 0)
        story.fetch(2, 0, sync=False)
        story.commit(0, 1)
        assert story.broken == expected


def test_an_acknowledgement_waits_for_the_commit_and_for_the_leaders_sync() -> None:
    story = led_by_0()
    story.append(0, "p1-01", sync=False)
    story.acknowledge(0, "p1-01")
    assert story.broken == ["acknowledged", "unsynced"]
    story = led_by_0(Settings(acks=1))
    story.append(0, "p1-01")
    story.acknowledge(0, "p1-01")
    assert story.broken == []


def test_who_is_taken_into_the_in_sync_set_has_all_that_is_committed() -> None:
    story = led_by_0()
    story.isr(0, 1)
    story.append(0, "p1-01")
    story.fetch(1, 0)
    story.commit(0, 1)
    assert story.broken == []
    story.isr(0, 1, 2)
    assert story.broken == ["in sync"]


def test_a_batch_that_is_committed_twice_is_found() -> None:
    story = led_by_0()
    story.committed_everywhere("p1-01")
    story.append(0, "p1-01", sequence=0)
    story.fetch(1, 0)
    story.fetch(2, 0)
    story.commit(0, 2)
    assert story.broken == ["sequence"]
    story.deliver(0, "p1-01", "p1-01")
    left = Left(0, {0: ("p1-01", "p1-01")})
    ending = compare(story.checks, left, story.checkers.findings, at_us=1000, in_order=True)
    assert (ending.duplicated, ending.lost) == (1, 0)
    assert story.broken == ["sequence", "twice"]


def test_without_idempotence_a_copy_is_counted_and_is_no_fault() -> None:
    story = led_by_0(idempotent=False)
    story.committed_everywhere("p1-01")
    story.committed_everywhere("p1-01")
    left = Left(0, {0: ("p1-01", "p1-01")})
    ending = compare(story.checks, left, story.checkers.findings, at_us=1000, in_order=True)
    assert (ending.duplicated, ending.lost, story.broken) == (1, 0, [])


@pytest.mark.parametrize(
    ("base", "ids", "kind"),
    [
        (0, ("p1-01", "p1-02", "p1-03"), "uncommitted"),
        (1, ("p1-02",), "gap"),
        (0, ("p1-01", "p1-09"), "disagreement"),
    ],
)
def test_readers_see_what_is_committed_in_order_and_the_same(
    base: int, ids: tuple[str, ...], kind: str
) -> None:
    story = led_by_0()
    story.committed_everywhere("p1-01", "p1-02")
    story.append(0, "p1-03")
    story.deliver(0, "p1-01")
    story.deliver(1, "p1-02")
    assert story.broken == []
    story.deliver(base, *ids, consumer="c2")
    assert story.broken == [kind]


def test_a_replicas_high_watermark_goes_back_only_with_its_log() -> None:
    story = led_by_0()
    story.committed_everywhere("p1-01", "p1-02")
    story.commit(0, 1)
    assert story.broken == ["watermark"]
    story.commit(1, 2)
    story.truncate(1, 0)
    story.commit(1, 0)
    story.crash(0, "kill")
    story.history.emit(Opened(story.tick(), 0, P, 2, 2))
    story.commit(0, 1)
    assert story.broken == ["watermark"]


def test_a_reader_is_never_told_a_lower_high_watermark() -> None:
    story = led_by_0()
    story.committed_everywhere("p1-01", "p1-02")
    story.deliver(0, "p1-01", watermark=2)
    story.deliver(1, "p1-02", watermark=1)
    assert story.broken == ["watermark"]


def test_a_reader_is_reset_only_when_something_was_lost() -> None:
    story = led_by_0(Settings(unclean_election=True))
    story.committed_everywhere("p1-01")
    story.deliver(0, "p1-01")
    story.history.emit(ConsumerReset(story.tick(), "c2", P, 1, 0))
    assert story.broken == ["reset"]
    story.append(0, "p1-02")
    story.fetch(1, 0)
    story.fetch(2, 0)
    story.commit(0, 2)
    story.truncate(2, 1, "an unclean one, as if it had lost it")
    story.elect(2, (2,), clean=False)
    story.history.emit(ConsumerReset(story.tick(), "c1", P, 2, 1))
    assert story.broken == ["reset"]


def test_with_acks_1_a_new_leader_may_lack_what_was_acknowledged() -> None:
    story = led_by_0(Settings(acks=1))
    story.append(0, "p1-01")
    story.acknowledge(0, "p1-01")
    story.elect(1, (1, 2))
    ending = compare(
        story.checks, Left(1, {1: ()}), story.checkers.findings, at_us=1000, in_order=True
    )
    assert (ending.lost, story.broken) == (1, [])
    assert ending.losses[0].reasons == (
        "acks=1: only the leader had to have it, and another one was elected",
    )


def test_with_acks_1_an_acknowledgement_that_comes_after_the_loss_counts() -> None:
    story = led_by_0(Settings(acks=1))
    story.append(0, "p1-01")
    story.elect(1, (1, 2))
    story.append(1, "p1-02", sequence=0)
    story.acknowledge(0, "p1-01", epoch=0)
    left = Left(1, {1: ("p1-02",)})
    ending = compare(story.checks, left, story.checkers.findings, at_us=1000, in_order=False)
    assert (ending.lost, story.broken) == (1, [])


def test_with_acks_1_the_same_leader_must_have_kept_it() -> None:
    story = led_by_0(Settings(acks=1))
    story.append(0, "p1-01")
    story.acknowledge(0, "p1-01")
    story.crash(0)
    story.history.emit(Opened(story.tick(), 0, P, 0, 0))
    assert story.broken == []  # others may be elected now
    story.elect(0, (0,))
    assert story.broken == ["lost"]


def test_a_lost_disk_of_the_only_replica_is_a_loss_that_nothing_forbids() -> None:
    story = Story(Settings(replication_factor=1, min_insync_replicas=1))
    story.elect(0, (0,))
    story.append(0, "p1-01")
    story.commit(0, 1)
    story.acknowledge(0, "p1-01")
    story.lose_disk(0)
    story.elect(0, (0,))
    ending = compare(
        story.checks, Left(0, {0: ()}), story.checkers.findings, at_us=1000, in_order=True
    )
    assert (ending.lost, story.broken) == (1, [])
    assert ending.losses[0].reasons == ("every in-sync replica had lost its storage at one time",)


def test_a_record_that_no_event_accounts_for_is_found_at_the_end() -> None:
    story = led_by_0()
    story.committed_everywhere("p1-01")
    left = Left(0, {0: (), 1: ("p1-01",)})
    ending = compare(story.checks, left, story.checkers.findings, at_us=1000, in_order=True)
    assert ending.lost == 1
    assert story.broken == ["divergence", "lost"]


def test_what_was_surely_refused_is_not_there() -> None:
    story = led_by_0()
    story.history.emit(Refused(story.tick(), "p1", P, 0, ("p1-01",), "too late", certain=True))
    story.committed_everywhere("p1-01")
    left = Left(0, {0: ("p1-01",)})
    compare(story.checks, left, story.checkers.findings, at_us=1000, in_order=True)
    assert story.broken == ["refused"]


def test_the_order_of_a_producer_is_looked_at_at_the_end() -> None:
    story = led_by_0()
    left = Left(0, {0: ("p1-02", "p2-01", "p1-01")})
    compare(story.checks, left, story.checkers.findings, at_us=1000, in_order=True)
    assert story.broken == ["order"]


def test_a_violation_bears_the_events_in_front_of_it() -> None:
    story = led_by_0()
    story.append(0, "p1-01")
    story.truncate(0, 0)
    story.elect(1, (1,), clean=False)
    (violation,) = story.checkers.findings.violations
    last = violation.events[-2:]
    assert isinstance(last[0], Truncated)
    assert isinstance(last[1], Elected)
    assert violation.at_us == last[1].at_us


def test_what_a_protocol_is_known_to_break_is_kept_apart() -> None:
    story = led_by_0(Settings(epoch_truncation="high_watermark"))
    story.append(0, "p1-01")
    story.elect(1, (0, 1, 2))
    story.append(1, "p1-02", sequence=0)
    story.append(1, "p1-03", sequence=1)
    story.fetch(0, 1)
    assert story.broken == []
    assert [violation.kind for violation in story.checkers.findings.known] == ["divergence"]
