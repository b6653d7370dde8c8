"""``logstore replay --bisect``, ``--bisect-cmd``, ``--diff``, and ``--fold`` alone."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from pathlib import Path

import pytest

import logstore
from logstore.segments.record import Record

from .program import json_lines, only_line, run, running

NOW = 1_700_000_000_000

SHOP = '''
"""An order system: deposits, orders and refunds change the balance of accounts."""
import dataclasses
import json


@dataclasses.dataclass
class State:
    balance: int = 0
    accounts: dict = dataclasses.field(default_factory=dict)
    last: str = ""


def ledger(state, record):
    state = State() if state is None else state
    event = json.loads(record.value)
    amount = event["amount"] if event["type"] != "order" else -event["amount"]
    state.balance += amount
    account = record.key.decode()
    state.accounts[account] = state.accounts.get(account, 0) + amount
    state.last = event["type"]
    return state


def fixed(state, record):
    """The same, but a refund is counted once for each order only."""
    event = json.loads(record.value)
    if event.get("again"):
        return state
    return ledger(state, record)


def as_dict(state, record):
    event = json.loads(record.value)
    state = state or {"balance": 0, "n": 0}
    state["balance"] += event["amount"] if event["type"] != "order" else -event["amount"]
    state["n"] += 1
    return state


def slow(state, record):
    import time
    if record.offset == 5:
        print("five", flush=True)
        time.sleep(60)
    return (state or 0) + 1
'''


def events() -> list[Record]:
    """60 events of four accounts; the planted fault: offset 41 takes more than there is, and offset
    42 gives it back, so that the end is as it should be."""
    found = []
    for n in range(60):
        event = {"type": "deposit" if n % 2 == 0 else "order", "amount": 10 if n % 2 == 0 else 9}
        if n == 41:
            event["amount"] = 500
        if n == 42:
            event = {"type": "refund", "amount": 501, "again": True}
        found.append(
            Record(
                timestamp=NOW + 1000 * n,
                key=b"account-%d" % (n % 4),
                value=json.dumps(event).encode(),
            )
        )
    return found


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``shop`` with the planted fault, ``copy`` in which one value differs and two are missing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "replayshop.py").write_text(SHOP)
    with logstore.open(tmp_path / "store", maintenance_interval=None) as opened:
        log = opened.create_topic("shop").partition(0)
        for start in range(0, 60, 7):
            log.append(events()[start : start + 7], acks=1)
        changed = events()
        changed[23] = changed[23]._replace(value=b'{"type": "order", "amount": 8}')
        opened.create_topic("copy").partition(0).append(changed[:58], acks=1)
    return tmp_path / "store"


# --- folding ------------------------------------------------------------------------------------


def test_a_fold_alone_prints_the_last_state(store: Path) -> None:
    assert (
        run("replay shop --fold replayshop:as_dict", store=store).stdout == "balance: 30\nn: 60\n"
    )
    (line,) = json_lines(run("replay shop --fold replayshop:ledger --json --max 2", store=store))
    assert line == {
        "type": "state",
        "records": 2,
        "state": {"balance": 1, "accounts": {"account-0": 10, "account-1": -9}, "last": "order"},
    }
    result = run("replay shop --fold", store.parent / "replayshop.py:as_dict", store=store)
    assert "balance: 30" in result.stdout
    empty = run("replay shop --fold replayshop:as_dict --json --max 0", store=store)
    assert json_lines(empty)[0]["state"] is None


# --- bisecting by a fold ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fold", "expression"),
    [
        ("ledger", "state.balance < 0"),
        ("as_dict", "state.balance < 0"),
        ("as_dict", "state['balance'] < 0 and record.key == 'account-1'"),
        ("ledger", "state.accounts['account-1'] < -500"),
        ("ledger", "json.amount > 400 and state.last == 'order'"),
    ],
)
def test_the_record_that_did_it_is_named_though_it_did_not_stay_so(
    fold: str, expression: str, store: Path
) -> None:
    words = ["replay", "shop", "--fold", f"replayshop:{fold}", "--bisect", expression]
    (line,) = json_lines(run(*words, "--json", store=store))
    assert list(line) == [
        "partition", "offset", "timestamp", "key", "state_before", "state_after"
    ]  # fmt: skip
    assert (line["partition"], line["offset"]) == (0, 41)
    assert (line["timestamp"], line["key"]) == (NOW + 41_000, "account-1")
    assert line["state_before"]["balance"] == 30
    assert line["state_after"]["balance"] == -470


AROUND = [
    f'{mark} shop-0 {offset}  2023-11-14T22:14:0{offset - 40}.000Z  key="account-{offset % 4}" '
     'value="{' + value + '}"'
    for mark, offset, value in (
        ("  ", 40, '\\"type\\": \\"deposit\\", \\"amount\\": 10'),
        ("=>", 41, '\\"type\\": \\"order\\", \\"amount\\": 500'),
        ("  ", 42, '\\"type\\": \\"refund\\", \\"amount\\": 501, \\"again\\": true'),
    )
]  # fmt: skip


def test_people_are_shown_the_records_around_it_and_what_it_changed(store: Path) -> None:
    result = run(
        "replay shop --fold replayshop:ledger --context 1 --bisect",
        "state.balance < 0",
        store=store,
    )
    assert result.stdout.splitlines() == [
        "'state.balance < 0' is true for the first time behind",
        "record 42 of shop: shop-0, offset 41",
        *AROUND,
        "what that record changed:",
        "    state.balance: 30 -> -470",
        '    state.accounts["account-1"]: -90 -> -590',
        '    state.last: "deposit" -> "order"',
    ]


def test_what_is_never_true_ends_with_1_and_a_misspelt_field_is_named(store: Path) -> None:
    words = ["replay", "shop", "--fold", "replayshop:as_dict", "--bisect"]
    for as_json in ([], ["--json"]):
        result = run(*words, "state.balanse < 0", *as_json, store=store, code=1)
        assert result.stdout == ""
        line = only_line(result.stderr)
        assert "'state.balanse < 0' is true behind none of 60 records" in line
        assert "at the end there is no 'balanse'" in line
    line = only_line(run(*words, "state.balance > 99999", store=store, code=1).stderr)
    assert line.endswith("none of 60 records")
    # A filter leaves the culprit out.
    result = run(*words, "state.balance < 0", "--where", "json.amount < 100", store=store, code=1)
    assert "none of 58 records" in result.stderr


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("shop --bisect 1", "--bisect asks about a state: name a --fold"),
        ("shop --fold replayshop:ledger --bisect nope", "column 1: there is no 'nope'"),
        ("shop --fold replayshop:ledger --bisect state.balanse", "a State has no 'balanse'"),
        ("shop --fold replayshop:nope --bisect 1", "replayshop has no 'nope'"),
        ("nope --fold replayshop:ledger --bisect 1", "no topic called 'nope'"),
        ("./nope --fold replayshop:ledger --bisect 1", "no such file or directory"),
        ("shop --offset 99 --fold replayshop:ledger --bisect 1", "out of range"),
        ("shop --fold replayshop:ledger --bisect 1 --to file:x", "--to makes no sense with"),
        ("shop --fold replayshop:ledger --bisect 1 --max 5", "--max makes no sense with --bisect"),
        ("shop --fold replayshop:ledger --bisect-cmd true", "exclude each other"),
        ("shop --bisect-cmd no-such-command-here", "ended with status 127, which is no verdict"),
        ("shop --diff", "2 sources expected, not 1"),
        ("shop copy --diff --fold replayshop:ledger", "1 source expected, not 2"),
        ("shop --diff --fold replayshop:ledger", "--diff compares two sources, or two folds"),
        ("shop nope --diff", "no topic called 'nope'"),
        ("shop copy --diff --compare offset", "'offset' cannot be compared"),
    ],
)
def test_trouble_ends_with_2_where_1_is_an_answer(words: str, reason: str, store: Path) -> None:
    result = run(f"replay {words}", store=store, code=2)
    assert reason in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_damage_is_trouble_too(store: Path) -> None:
    log = next((store / "topics" / "shop-0").glob("*.log"))
    data = bytearray(log.read_bytes())
    data[-1] ^= 1
    log.write_bytes(data)
    words = ["replay", "shop", "--fold", "replayshop:as_dict", "--bisect"]
    assert "checksum" in only_line(run(*words, "state.n > 1000", store=store, code=2).stderr)
    assert run(*words, "state.balance < 0", "--json", store=store).exit_code == 0
    assert "checksum" in only_line(run("replay --diff shop copy", store=store, code=2).stderr)


def test_ctrl_c_says_how_many_records_were_folded(store: Path) -> None:
    words = ["replay", "shop", "--fold", "replayshop:slow", "--bisect", "state > 100"]
    with running(*words, store=store) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"five\n"
        process.send_signal(signal.SIGINT)
        complaint = process.stderr.read()
        assert process.wait(30) == 130
    assert b"interrupted: 5 records folded before that, up to shop-0 offset 4" in complaint


# --- bisecting by a command ---------------------------------------------------------------------

CHECK = """
import json, sys
balance = 0
for line in sys.stdin:
    event = json.loads(json.loads(line)["value"])
    balance += event["amount"] if event["type"] != "order" else -event["amount"]
    if balance < 0:
        print("negative")
        sys.exit(1)
"""


def test_a_command_finds_it_in_few_runs(store: Path) -> None:
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(CHECK)}"
    with running("replay", "shop", "--bisect-cmd", command, "--json", store=store) as process:
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    found = json.loads(output)
    assert (found["offset"], found["key"]) == (41, "account-1")
    assert found["state_before"] is found["state_after"] is None
    runs = [line for line in errors.decode().splitlines() if line.endswith((": good", ": bad"))]
    assert len(runs) <= 2 + 6
    assert runs[0] == "60 records: bad"
    assert runs[1] == "0 records: good"
    assert "negative" in errors.decode()  # what the command prints is no part of the answer


def test_a_command_that_finds_nothing_ends_with_1(store: Path) -> None:
    with running("replay", "shop", "--bisect-cmd", "cat > /dev/null", store=store) as process:
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (1, b"")
    assert b"finds nothing bad" in errors


def test_people_are_shown_the_record_and_its_neighbours(store: Path) -> None:
    command = "n=$(wc -l); test $n -lt 13"
    with running(
        "replay", "shop", "--bisect-cmd", command, "--context", "1", store=store
    ) as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    lines = output.decode().splitlines()
    assert "fails for the first time" in lines[0]
    assert lines[1] == "record 13 of shop: shop-0, offset 12"
    assert [line[:12] for line in lines[2:]] == ["   shop-0 11", "=> shop-0 12", "   shop-0 13"]


# --- comparing ----------------------------------------------------------------------------------


def test_two_logs_are_compared_by_offset(store: Path) -> None:
    result = run("replay --diff shop copy", store=store, code=1)
    lines = result.stdout.splitlines()
    assert lines[0] == "first difference at partition 0, offset 23: value"
    assert lines[1].startswith("< shop-0 23")
    assert lines[2].startswith("> copy-0 23")
    assert lines[3] == "57 the same, 1 different, 2 only in shop, 0 only in copy"
    first, summary = json_lines(run("replay --diff shop copy --json", store=store, code=1))
    assert (first["type"], first["kind"], first["fields"]) == ("divergence", "changed", ["value"])
    assert first["left"]["offset"] == first["right"]["offset"] == 23
    assert first["right"]["value"] == '{"type": "order", "amount": 8}'
    assert summary == {"type": "summary", "same": 57, "changed": 1, "removed": 2, "added": 0}
    result = run("replay --diff shop copy --end-offset 23", store=store)
    assert result.stdout == "no difference: 23 records the same\n"
    lines = run("replay --diff copy shop --offset 50", store=store, code=1).stdout.splitlines()
    assert lines[0] == "first difference at partition 0, offset 58: only in shop"
    assert lines[1].startswith("> shop-0 58")


def test_two_logs_are_compared_by_key(store: Path) -> None:
    run("replay shop --to topic:keyed --partitions key --timestamps now", store=store)
    words = "replay --diff shop keyed --by key --compare"
    assert run(words, "value,headers", store=store).stdout == "no difference: 60 records the same\n"
    result = run(words, "value,timestamp", store=store, code=1)
    assert "first difference at partition 0, offset 0: timestamp" in result.stdout
    result = run("replay --diff shop copy --by key --json", store=store, code=1)
    first, summary = json_lines(result)
    assert first["left"]["offset"] == 23
    assert summary == {"type": "summary", "same": 57, "changed": 1, "removed": 2, "added": 0}


def test_two_folds_are_compared_over_one_log(store: Path) -> None:
    words = "replay shop --diff --fold replayshop:ledger --fold"
    lines = run(words, "replayshop:fixed", store=store, code=1).stdout.splitlines()
    assert lines[0] == "the states differ for the first time behind"
    assert lines[1].startswith("=> shop-0 42")
    assert "    state.balance: 31 -> -470" in lines
    assert lines[-1] == "42 the same, 18 different; at the end they differ"
    first, summary = json_lines(run(words, "replayshop:fixed", "--json", store=store, code=1))
    assert first["record"]["offset"] == 42
    assert (first["left"]["balance"], first["right"]["balance"]) == (31, -470)
    assert summary == {"type": "fold-summary", "same": 42, "different": 18, "last_differs": True}
    result = run(words, "replayshop:ledger", store=store)
    assert result.stdout == "no difference behind any of 60 records\n"
