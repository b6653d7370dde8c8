"""``logstore queue get``, ``peek``, ``purge``, ``describe``, ``ledger``; ``logstore consume``."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import logstore

from .program import end_of, json_lines, only_line, run, running


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    run("queue declare payments --arg dead_letter_exchange=failed", store=path)
    for body in ("one", "two", "three"):
        run("queue publish", "", "payments", body, store=path)
    return path


def queue_of(path: Path, name: str = "payments") -> dict[str, Any]:
    (fields,) = json_lines(run("queue describe", name, "--json", store=path))
    return fields


def test_getting_prints_messages_and_acknowledges_them(path: Path) -> None:
    assert run("queue get payments", store=path).stdout_bytes == b"one\n"
    assert run("queue get payments --count 5", store=path).stdout_bytes == b"two\nthree\n"
    assert run("queue get payments", store=path).stdout_bytes == b""
    assert queue_of(path)["ready"] == 0


def test_what_is_got_without_an_acknowledgement_stays(path: Path) -> None:
    assert run("queue get payments --count 2 --no-ack", store=path).stdout_bytes == b"one\ntwo\n"
    found = json_lines(run("queue get payments --count 9 --json", store=path))
    assert [fields["body"] for fields in found] == ["one", "two", "three"]
    assert [fields["redelivered"] for fields in found] == [True, True, False]
    assert [fields["delivery_count"] for fields in found] == [1, 1, 0]


def test_a_message_in_json_tells_all_there_is_to_it(path: Path) -> None:
    run("exchange declare shop --type topic", store=path)
    run("queue bind payments shop", "order.#", store=path)
    run("queue purge payments", store=path)
    run(
        "queue publish shop order.payment",
        b"\xff\x00".decode("latin-1"),
        *("--property", "priority=3", "--property", "type=created", "--header", "attempt:=1"),
        store=path,
    )
    (fields,) = json_lines(run("queue peek payments --json", store=path))
    assert fields == {
        "body": "ÿ\x00",
        "exchange": "shop",
        "routing_key": "order.payment",
        "redelivered": False,
        "delivery_count": 0,
        "properties": {"headers": {"attempt": 1}, "priority": 3, "type": "created"},
    }


def test_peeking_leaves_everything_as_it_is(path: Path) -> None:
    for _ in range(2):
        printed = run("queue peek payments --count 2", store=path).stdout_bytes
        assert printed == b"one\ntwo\n"
    assert queue_of(path)["ready"] == 3


def test_purging_drops_what_waits(path: Path) -> None:
    assert only_line(run("queue purge payments", store=path).stdout) == (
        "purged 3 messages from queue payments"
    )
    assert json_lines(run("queue purge payments --json", store=path)) == [
        {"name": "payments", "purged": 0}
    ]
    assert queue_of(path)["ready"] == 0


def test_a_queue_is_described_with_its_consumers(path: Path) -> None:
    with (
        logstore.open(path, maintenance_interval=None) as store,
        store.queue("payments").consume(prefetch=7, tag="worker") as consumer,
    ):
        assert consumer.get() is not None
        fields = queue_of(path)
        text = run("queue describe payments", store=path).stdout
    assert (fields["name"], fields["ready"], fields["unacked"]) == ("payments", 0, 3)
    (details,) = fields["consumer_details"]
    assert (details["tag"], details["prefetch"], details["exclusive"]) == ("worker", 7, False)
    assert "dead_letter_exchange: failed" in text
    assert "worker" in text


def test_a_queue_is_described_with_its_bindings(path: Path) -> None:
    run("exchange declare failed --type headers", store=path)
    run("queue bind payments amq.topic pay.#", store=path)
    result = run(
        'queue bind payments failed --header x-match=any --header b:={"base64":"AA=="} '
        '--header t:={"timestamp":5} --header d:={"decimal":"1.5"} --json',
        store=path,
    )
    (made,) = json_lines(result)
    arguments = {
        "x-match": "any",
        "b": {"base64": "AA=="},
        "t": {"timestamp": 5},
        "d": {"decimal": "1.5"},
    }
    assert made["arguments"] == arguments
    bound = queue_of(path)["bindings"]
    assert sorted(bound, key=lambda one: str(one["exchange"])) == [
        {"exchange": "amq.topic", "routing_key": "pay.#", "arguments": {}},
        {"exchange": "failed", "routing_key": "", "arguments": arguments},
    ]
    text = run("queue describe payments", store=path).stdout
    assert "amq.topic  pay.#" in text
    run("queue declare other", store=path)
    assert queue_of(path, "other")["bindings"] == []


def test_a_ledger_is_shown_and_checked(path: Path) -> None:
    with logstore.open(path, maintenance_interval=None) as store:
        store.exchange("").publish(b"later", "payments", delay_ms=3_600_000)
        queue = store.queue("payments")
        first, second, *_ = queue.get_many(4)
        second.nack()
        text = run("queue ledger payments", store=path).stdout
        (fields,) = json_lines(run("queue ledger payments --json", store=path))
        assert first.offset == 0
    assert "cursor 4" in text
    assert text.endswith("the ledger holds\n")
    assert [span["state"] for span in fields["spans"]] == ["returned", "held"]
    assert fields["spans"][1]["due_ms"] > time.time() * 1000
    (lease,) = fields["leases"]
    assert (lease["first_offset"], lease["last_offset"], lease["unacked"]) == (0, 3, 2)
    assert 0 < lease["milliseconds_left"] <= 30 * 60_000


def test_a_ledger_that_does_not_hold_is_told(path: Path) -> None:
    run("queue get payments --count 2 --no-ack", store=path)
    with logstore.open(path, maintenance_interval=None) as store:
        definition = store.queue("payments").definition
        (level,) = store.queues.work_queue(definition).levels()
        level.log.truncate(1)
    result = run("queue ledger payments", store=path, code=1)
    assert "the cursor is 2, beyond the log's end, 1" in result.stdout
    found = json_lines(run("queue ledger payments --json", store=path, code=1))
    assert [fields["type"] for fields in found][-1] == "finding"


@pytest.mark.parametrize(
    "words",
    [
        "queue get",
        "queue peek",
        "queue purge",
        "queue describe",
        "queue ledger",
        "consume --exec true",
    ],
)
def test_a_queue_that_is_not_there_is_an_error(path: Path, words: str) -> None:
    result = run(words, "nowhere", store=path, code=1)
    assert "nowhere" in only_line(result.stderr)


# consume ------------------------------------------------------------------------------------


def test_a_command_is_run_for_each_message(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    command = f'{{ cat; echo " $LOGSTORE_QUEUE $LOGSTORE_ROUTING_KEY"; }} >> {target}'
    run("consume payments --timeout 0 --exec", command, store=path)
    assert target.read_text().splitlines() == [
        f"{body} payments payments" for body in ("one", "two", "three")
    ]
    assert (queue_of(path)["ready"], queue_of(path)["unacked"]) == (0, 0)


def test_a_message_whose_command_fails_comes_back(path: Path) -> None:
    result = run("consume payments --count 2 --retry-pause 0 --json --exec", "exit 3", store=path)
    told = json_lines(result)
    assert [(t["body"], t["exit_code"], t["outcome"]) for t in told] == [
        ("one", 3, "requeue"),
        ("one", 3, "requeue"),
    ]
    assert [t["redelivered"] for t in told] == [False, True]
    assert queue_of(path)["ready"] == 3


def test_a_message_whose_command_fails_can_be_given_up(path: Path) -> None:
    run("exchange declare failed --type fanout", store=path)
    run("queue declare failures", store=path)
    run("queue bind failures failed", store=path)
    words = "consume payments --timeout 0 --on-failure reject --retry-pause 0 --exec"
    result = run(words, "grep -q t", store=path)
    assert "exited with 1: the message is given up" in only_line(result.stderr)
    assert run("queue get failures", store=path).stdout_bytes == b"one\n"


def test_a_command_that_cannot_be_run_costs_no_message(path: Path) -> None:
    for command, code in (("no-such-program-anywhere", 127), ("/etc", 126)):
        words = "consume payments --on-failure reject --json --exec"
        result = run(words, command, store=path, code=1)
        (told,) = json_lines(result)
        assert (told["body"], told["exit_code"], told["outcome"]) == ("one", code, "requeue")
        assert "the shell cannot run the command" in result.stderr
    complaint = run("consume payments --timeout 0 --exec", " ", store=path, code=2).stderr
    assert "an empty one would acknowledge everything" in only_line(complaint)
    assert queue_of(path)["ready"] == 3


def test_a_command_that_a_signal_ends_is_told_by_the_name_of_that(path: Path) -> None:
    words = "consume payments --count 1 --retry-pause 0 --exec"
    complaint = run(words, "kill -9 $$", store=path).stderr
    assert only_line(complaint).endswith("was ended by SIGKILL: the message comes back")


def test_a_request_to_terminate_lets_the_command_come_to_its_end(path: Path) -> None:
    with running(
        "consume payments --exec", "echo at it; sleep 1; echo done", store=path
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"at it\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == b"done\n"
        assert end_of(process) == (0, b"")
    assert (queue_of(path)["ready"], queue_of(path)["unacked"]) == (2, 0)


def test_a_request_to_terminate_ends_one_that_waits(path: Path) -> None:
    with running("consume payments --exec", "cat; echo", store=path) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(3)] == [b"one\n", b"two\n", b"three\n"]
        process.send_signal(signal.SIGTERM)
        assert end_of(process) == (0, b"")
    assert (queue_of(path)["ready"], queue_of(path)["unacked"]) == (0, 0)


def test_ctrl_c_gives_the_message_back(path: Path) -> None:
    script = "import sys, time; sys.stdin.read(); print('at it', flush=True); time.sleep(60)"
    command = f'exec {sys.executable} -c "{script}"'
    with running("consume payments --exec", command, store=path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"at it\n"
        assert queue_of(path)["unacked"] == 1
        process.send_signal(signal.SIGINT)
        code, complaint = end_of(process)
    assert (code, complaint) == (130, b"logstore: interrupted\n")
    assert (queue_of(path)["ready"], queue_of(path)["unacked"]) == (3, 0)


def test_seeking_delivers_again_and_says_what_it_would_do(path: Path) -> None:
    run("queue get payments --count 3", store=path)
    assert only_line(run("queue seek payments --shift-by -2 --dry-run", store=path).stdout) == (
        "queue payments: to offset 1, 2 messages would be ready again"
    )
    assert queue_of(path)["ready"] == 0
    assert json_lines(run("queue seek payments --to-offset 1 --json", store=path)) == [
        {
            "name": "payments",
            "level": 0,
            "offset": 1,
            "returned": 2,
            "skipped": 0,
            "in_flight": 0,
            "dry_run": False,
        }
    ]
    assert run("queue get payments", store=path).stdout_bytes == b"two\n"
    assert only_line(run("queue seek payments --to-latest", store=path).stdout) == (
        "queue payments: to offset 3, 1 message was skipped"
    )
    assert only_line(run("queue seek payments --to-time 1h", store=path).stdout) == (
        "queue payments: to offset 0, 3 messages are ready again"
    )


@pytest.mark.parametrize(
    ("given", "code", "complaint"),
    [
        ("", 2, "where to? Give one of --to-offset"),
        ("--to-earliest --to-latest", 2, "where to? Give one of"),
        ("--to-offset 9", 2, "offset 9 is beyond the log's end, 3"),
        ("--to-time yesterday", 2, "'yesterday' is no time"),
        ("--to-earliest --priority 3", 2, "the priorities 0 to 0, not 3"),
    ],
)
def test_seeking_nowhere_is_wrong_use(path: Path, given: str, code: int, complaint: str) -> None:
    result = run("queue seek payments", *given.split(), store=path, code=code)
    assert complaint in result.stderr
    assert queue_of(path)["ready"] == 3


def test_redriving_says_what_goes_where_and_what_stays(path: Path) -> None:
    run("exchange declare failed --type fanout", store=path)
    run("queue declare dlq", store=path)
    run("queue bind dlq failed", store=path)
    run("queue publish", "", "dlq", "stray", store=path)
    run("consume payments --on-failure reject --timeout 0 --exec", "exit 1", store=path)
    where = ("--where", "reason == 'rejected' and body != 'two'")
    result = run("queue redrive dlq --dry-run", *where, store=path)
    assert result.stdout.splitlines() == [
        "2 messages would go from queue dlq to queue payments",
        "2 messages did not match",
    ]
    assert queue_of(path, "dlq")["ready"] == 4
    run("queue redrive dlq", *where, store=path)
    assert queue_of(path)["ready"] == 2
    assert json_lines(run("queue redrive dlq --json", store=path)) == [
        {
            "name": "dlq",
            "redriven": 1,
            "to": {"payments": 1},
            "unmatched": 0,
            "left": [
                {
                    "reason": "they are no dead letters: they have no x-death",
                    "count": 1,
                    "offsets": [0],
                }
            ],
            "dry_run": False,
        }
    ]
    assert run("queue redrive dlq", store=path).stdout.splitlines() == [
        "no message went from queue dlq",
        "left 1 message: they are no dead letters: they have no x-death (offsets 0)",
    ]
    result = run("queue redrive dlq --to misspelt", store=path, code=1)
    assert "no queue called 'misspelt'" in result.stderr
    result = run("queue redrive dlq --where", "nonsense > 1", store=path, code=2)
    assert "there is no 'nonsense'; there are" in result.stderr
