"""The ledger against a simple model, a list of messages; crashes come before any commit."""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from logstore.queues.ledger import Ledger, Policy
from logstore.queues.ledger_check import check_ledger
from logstore.queues.ledger_rows import DEAD, NEVER, RETURNED, Head, Lease, Reason, Rows, Span

from .tables_support import Dropped, LmdbTable, MemoryTable

KEY = b"q" * 16 + b"\0"
OTHER_KEYS = (b"q" * 16 + b"\1", b"p" * 16 + b"\xff", b"r" * 16 + b"\0")
SESSIONS = tuple(bytes([number]) * 16 for number in range(2))
CRASHES = st.sampled_from((False, False, False, False, True))


def size_of(offset: int) -> int:
    return 1 + offset % 7


def sizes(first: int, count: int) -> int:
    return sum(map(size_of, range(first, first + count)))


@dataclass
class Message:
    """One message, in the model."""

    state: str = "ready"
    """ready, leased, returned, held, dead or settled."""
    deliveries: int = 0
    lease: int = 0
    session: bytes = b""
    deadline: int = 0
    due: int = 0
    reason: int = 0


@dataclass
class Model:
    """All messages of a log, and what the clocks say."""

    messages: list[Message] = field(default_factory=list)
    cursor: int = 0
    next_lease: int = 1
    now_ms: int = 1000
    boottime_ms: int = 50
    delivery_limit: int | None = None
    dead_letters: bool = True

    def offsets(self, state: str) -> list[int]:
        return [offset for offset, m in enumerate(self.messages) if m.state == state]

    def ready(self) -> list[int]:
        return self.offsets("returned") + self.offsets("ready")

    def due(self) -> list[int]:
        due = [o for o in self.offsets("held") if self.messages[o].due <= self.now_ms]
        return sorted(due, key=lambda offset: (self.messages[offset].due, offset))

    def in_order(self) -> list[int]:
        return self.offsets("returned") + self.due() + self.offsets("ready")

    def come_back(self, message: Message, delivered: bool) -> None:
        message.deliveries += delivered
        limit = self.delivery_limit
        if delivered and limit is not None and message.deliveries > limit:
            self.bury(message, Reason.DELIVERY_LIMIT)
        else:
            message.state = "returned"

    def bury(self, message: Message, reason: Reason) -> None:
        message.state = "dead" if self.dead_letters else "settled"
        message.reason = reason


class LedgerMachine(RuleBasedStateMachine):
    """Commands to the ledger and to the model."""

    def __init__(self) -> None:
        super().__init__()
        self.directory: Path | None = None
        self.table: MemoryTable | LmdbTable = MemoryTable()
        self.model = Model()
        self.number = 0
        self.leases: list[Lease] = []
        """All that were ever given, those that have ended among them."""
        self.checkpoint: tuple[int, list[Span], Model] | None = None

    @initialize(
        limit=st.none() | st.integers(0, 2),
        dead_letters=st.booleans(),
        on_disk=st.booleans(),
    )
    def begin(self, limit: int | None, dead_letters: bool, on_disk: bool) -> None:
        self.model.delivery_limit, self.model.dead_letters = limit, dead_letters
        if on_disk:
            self.directory = Path(tempfile.mkdtemp())
            self.table = LmdbTable(self.directory)
        with self.table.transaction() as rows:
            for key in (KEY, *OTHER_KEYS):
                rows.put(key, Head().pack())
                if key != KEY:  # neighbours, which must never be touched
                    rows.put(key + b"l" + bytes(16), Lease(0, 1, SESSIONS[0], 1, 0, 0).pack())
                    rows.put(key + b"r" + bytes(8), Span(0, 1, 0).pack())

    def teardown(self) -> None:
        with self.table.transaction() as rows:
            for key in OTHER_KEYS:
                assert rows.get(key + b"l" + bytes(16)) is not None
                assert rows.get(key + b"r" + bytes(8)) is not None
        self.table.close()
        if self.directory is not None:
            shutil.rmtree(self.directory)

    def command(self, act: Callable[[Ledger], object], *, crash: bool) -> bool:
        """Let ``act`` happen; with ``crash`` it did not, in the end."""
        self.number += 1

        def change(rows: Rows) -> None:
            ledger = self.load(rows)
            act(ledger)
            ledger.save(self.number)

        return self.transaction(change, crash=crash)

    def transaction(self, act: Callable[[Rows], None], *, crash: bool) -> bool:
        with self.table.transaction() as rows:
            act(rows)
            if crash:
                raise Dropped
        return not crash

    def load(self, rows: Rows) -> Ledger:
        data = rows.get(KEY)
        assert data is not None
        policy = Policy(self.model.delivery_limit, self.model.dead_letters)
        return Ledger(rows, KEY, Head.unpack(data), policy, sizes)

    # Commands ---------------------------------------------------------------------------------

    @rule(count=st.integers(1, 12), crash=CRASHES)
    def publish(self, count: int, crash: bool) -> None:
        first = len(self.model.messages)
        self.model.messages += [Message() for _ in range(count)]  # and these stay, in any case
        end = first + count
        self.command(lambda ledger: ledger.added(first, end, sizes(first, count)), crash=crash)

    @rule(
        most=st.integers(1, 10),
        session=st.sampled_from(SESSIONS),
        time=st.integers(0, 30),
        crash=CRASHES,
    )
    def take(self, most: int, session: bytes, time: int, crash: bool) -> None:
        model = self.model
        expected = model.in_order()[:most]
        deadline = model.boottime_ms + time
        leases: list[Lease] = []

        def act(ledger: Ledger) -> None:
            end = len(model.messages)
            waiting = ledger.waiting(most, log_end=end, now_ms=model.now_ms)
            leases.extend(
                ledger.take(
                    most, log_end=end, now_ms=model.now_ms, session=session, deadline=deadline
                )
            )
            assert [lease[:1] + (lease.length, lease.delivery_count) for lease in leases] == [
                span[:3] for span in waiting
            ]

        done = self.command(act, crash=crash)
        taken = [lease.first + n for lease in leases for n in range(lease.length)]
        assert taken == expected
        for lease in leases:
            for n in range(lease.length):
                assert model.messages[lease.first + n].deliveries == lease.delivery_count
        if not done:
            return
        self.leases += leases
        for lease in leases:
            assert lease.number >= model.next_lease, "a lease's number was given before"
            model.next_lease = lease.number + 1
            for n in range(lease.length):
                message = model.messages[lease.first + n]
                message.state, message.lease = "leased", lease.number
                message.session, message.deadline = session, deadline
        model.cursor = max(model.cursor, *(offset + 1 for offset in taken), 0)

    def holds(self, lease: Lease, bit: int) -> bool:
        offset = lease.first + bit
        if bit >= lease.length or offset >= len(self.model.messages):
            return False
        message = self.model.messages[offset]
        return message.state == "leased" and message.lease == lease.number

    @precondition(lambda self: self.leases)
    @rule(
        data=st.data(),
        what=st.sampled_from(("ack", "requeue", "requeue", "release", "bury", "hold")),
        late=CRASHES,
        crash=CRASHES,
    )
    def settle(self, data: st.DataObject, what: str, late: bool, crash: bool) -> None:
        model = self.model
        alive = [lease for lease in self.leases if any(map(partial(self.holds, lease), range(12)))]
        lease = data.draw(st.sampled_from(self.leases[-8:] if late or not alive else alive))
        start = data.draw(st.integers(0, lease.length - 1))
        step = data.draw(st.integers(1, 2))
        chosen = list(range(start, data.draw(st.integers(start, lease.length)) or 1, step))
        bits = sum(1 << bit for bit in chosen)
        dues = {bit: model.now_ms + data.draw(st.integers(0, 40)) // 10 * 10 for bit in chosen}
        acts: dict[str, Callable[[Ledger], bool]] = {
            "ack": lambda ledger: ledger.ack(lease, bits),
            "requeue": lambda ledger: ledger.requeue(lease, bits),
            "release": lambda ledger: ledger.requeue(lease, bits, delivered=False),
            "bury": lambda ledger: ledger.bury(lease, bits, Reason.REJECTED),
            "hold": lambda ledger: ledger.hold(lease, dues),
        }
        holds = lease in alive
        accepted: list[bool] = []
        if not self.command(lambda ledger: accepted.append(acts[what](ledger)), crash=crash):
            return
        assert accepted == [holds]
        for bit in chosen:
            if not self.holds(lease, bit):
                continue  # settled before, or somebody else's by now
            message = model.messages[lease.first + bit]
            if what == "ack":
                message.state = "settled"
            elif what == "bury":
                model.bury(message, Reason.REJECTED)
            elif what == "hold":
                message.state, message.due = "held", dues[bit]
            else:
                model.come_back(message, delivered=what == "requeue")

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), time=st.integers(0, 60), crash=CRASHES)
    def renew(self, data: st.DataObject, time: int, crash: bool) -> None:
        model = self.model
        lease = data.draw(st.sampled_from(self.leases[-8:]))
        bits = data.draw(st.integers(1, lease.all_bits))
        held = [bit for bit in range(lease.length) if bits >> bit & 1 and self.holds(lease, bit)]
        alive = any(self.holds(lease, bit) for bit in range(lease.length))
        deadline = model.boottime_ms + time
        found: list[list[Lease] | None] = []
        if not self.command(
            lambda one: found.append(one.renew(lease, bits, deadline)), crash=crash
        ):
            return
        [leases] = found
        assert (leases is not None) == alive
        renewed = [(one, bit) for one in leases or () for bit in range(one.length)]
        assert [one.first + bit for one, bit in renewed] == [lease.first + bit for bit in held]
        for one, bit in renewed:
            assert (one.session, one.delivery_count) == (lease.session, lease.delivery_count)
            message = model.messages[one.first + bit]
            message.lease, message.deadline = one.number, deadline
        for one in leases or ():
            assert one.number >= model.next_lease, "a lease's number was given before"
            model.next_lease = one.number + 1
        self.leases += leases or ()

    @rule(session=st.sampled_from(SESSIONS), crash=CRASHES)
    def a_session_ends(self, session: bytes, crash: bool) -> None:
        if self.command(lambda ledger: ledger.end_session(session), crash=crash):
            for offset in self.model.offsets("leased"):
                message = self.model.messages[offset]
                if message.session == session:
                    self.model.come_back(message, True)

    @rule(crash=CRASHES)
    def leases_end(self, crash: bool) -> None:
        model = self.model
        ended = [
            message
            for message in (model.messages[offset] for offset in model.offsets("leased"))
            if message.deadline <= model.boottime_ms
        ]
        counts: list[int] = []
        end = model.boottime_ms
        if self.command(lambda ledger: counts.append(ledger.end_overdue(end)), crash=crash):
            assert counts == [len(ended)]
            for message in ended:
                model.come_back(message, True)

    @rule(ms=st.integers(1, 50))
    def time_passes(self, ms: int) -> None:
        self.model.now_ms += ms
        self.model.boottime_ms += ms

    @rule(crash=CRASHES)
    def purge(self, crash: bool) -> None:
        model = self.model
        waiting = model.ready() + model.offsets("held")
        counts: list[int] = []
        end = len(model.messages)
        if self.command(
            lambda ledger: counts.append(ledger.skip_waiting(end, log_end=end)), crash=crash
        ):
            assert counts == [len(waiting)]
            for offset in waiting:
                model.messages[offset].state = "settled"
            model.cursor = end

    @rule(
        back=st.integers(0, 20),
        lost=st.lists(st.integers(0, 40), max_size=3),
        crash=CRASHES,
    )
    def seek_back(self, back: int, lost: list[int], crash: bool) -> None:
        model = self.model
        first = max(0, model.cursor - back)
        edges = [first, *sorted({one for one in lost if first <= one < model.cursor})]
        # The log has not got the messages at the edges: retention took them.
        runs = [
            (edge + 1, end) for edge, end in zip(edges, [*edges[1:], model.cursor], strict=True)
        ]
        there = [offset for run in runs for offset in range(*run)]
        expected = [offset for offset in there if model.messages[offset].state == "settled"]
        counts: list[int] = []
        if self.command(lambda ledger: counts.append(ledger.bring_back(runs)), crash=crash):
            assert counts == [len(expected)]
            for offset in expected:
                model.messages[offset] = Message("returned", deliveries=1)

    @rule(ahead=st.integers(0, 12), crash=CRASHES)
    def seek_forward(self, ahead: int, crash: bool) -> None:
        model = self.model
        end = len(model.messages)
        to = min(model.cursor + ahead, end)
        skipped = [one for one in model.ready() + model.offsets("held") if one < to]
        counts: list[int] = []

        def act(ledger: Ledger) -> None:
            counts.append(ledger.skip_waiting(to, log_end=end))

        if self.command(act, crash=crash):
            assert counts == [len(skipped)]
            for offset in skipped:
                model.messages[offset].state = "settled"
            model.cursor = to

    @rule(most=st.integers(1, 8), crash=CRASHES)
    def drop_head(self, most: int, crash: bool) -> None:
        model = self.model
        expected = model.ready()[:most]
        end = len(model.messages)
        counts: list[int] = []

        def act(ledger: Ledger) -> None:
            counts.append(ledger.drop_head(most, log_end=end, reason=Reason.MAXLEN))

        if self.command(act, crash=crash):
            assert counts == [len(expected)]
            for offset in expected:
                model.bury(model.messages[offset], Reason.MAXLEN)
            model.cursor = max(model.cursor, *(offset + 1 for offset in expected), 0)

    @rule(most=st.integers(1, 3), part=st.integers(1, 4), crash=CRASHES)
    def dead_letters_move(self, most: int, part: int, crash: bool) -> None:
        moved: list[int] = []

        def act(ledger: Ledger) -> None:
            for span in ledger.dead_spans(most):
                span = span._replace(length=min(span.length, part))
                for n in range(span.length):
                    message = self.model.messages[span.first + n]
                    assert (message.state, message.reason) == ("dead", span.reason)
                    assert message.deliveries == span.delivery_count
                ledger.forget_dead(span)
                moved.extend(range(span.first, span.end))

        if self.command(act, crash=crash):
            for offset in moved:
                self.model.messages[offset].state = "settled"

    # Power cuts -------------------------------------------------------------------------------

    @rule()
    def take_a_checkpoint(self) -> None:
        with self.table.transaction() as rows:
            ledger = self.load(rows)
            self.checkpoint = (
                ledger.head.cursor,
                ledger.outstanding(),
                copy.deepcopy(self.model),
            )

    @precondition(lambda self: self.checkpoint is not None)
    @rule(lost=st.integers(0, 8), crash=CRASHES)
    def cut_the_power(self, lost: int, crash: bool) -> None:
        assert self.checkpoint is not None
        cursor, spans, before = self.checkpoint
        # What a checkpoint names is synced. (Behind a copy of older files it may not be: cut.)
        end = max(0, len(self.model.messages) - lost)

        def act(rows: Rows) -> None:
            next_lease = self.load(rows).head.next_lease
            for key, _ in list(rows.items(KEY)):
                rows.delete(key)
            ledger = Ledger(rows, KEY, Head(next_lease=next_lease), sizes=sizes)
            ledger.restore(cursor, spans, 0, end)
            ledger.save(self.number)

        if not self.transaction(act, crash=crash):
            return
        messages = before.messages[:end]
        for message in messages:
            if message.state == "leased":
                message.state, message.deliveries = "returned", message.deliveries + 1
            elif message.state == "held":
                message.state = "returned"
        messages += [Message() for _ in range(end - len(messages))]
        self.model.messages = messages
        self.model.cursor = min(cursor, end)
        self.checkpoint = None

    # What always holds ------------------------------------------------------------------------

    @invariant()
    def the_ledger_holds(self) -> None:
        model = self.model
        with self.table.transaction() as rows:
            if rows.get(KEY) is None:
                return
            ledger = self.load(rows)
            end = len(model.messages)
            assert check_ledger(ledger, log_start=0, log_end=end) == []
            head = ledger.head
            assert (head.cursor, head.ready(end)) == (model.cursor, len(model.ready()))
            assert head.unacked == len(model.offsets("leased"))
            ledger.count_to(end)
            assert head.ready_bytes == sum(map(size_of, model.ready()))
            assert ledger.due_count(model.now_ms) == len(model.due())
            held = [span.first + n for _, span in ledger.held() for n in range(span.length)]
            assert sorted(held) == model.offsets("held")
            for kind, state in ((RETURNED, "returned"), (DEAD, "dead")):
                found = [span.first + n for span in ledger.spans(kind) for n in range(span.length)]
                assert found == model.offsets(state)
            dues = [model.messages[offset].due for offset in model.offsets("held")]
            assert head.next_due == min(dues, default=NEVER)


def test_the_ledger_does_what_a_list_of_messages_does() -> None:
    run_state_machine_as_test(
        LedgerMachine,
        settings=settings(max_examples=150, stateful_step_count=50, deadline=None),
    )
