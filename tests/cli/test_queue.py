"""``logstore queue``: declaring, binding, publishing, listing, deleting."""

from __future__ import annotations

from pathlib import Path

import logstore
from logstore.queues.properties import Envelope, Properties, from_record
from logstore.store import Store

from .program import json_lines, only_line, run


def messages(store: Store, name: str) -> list[Envelope]:
    """What lies in a queue's log."""
    definition = store.queue(name, passive=True).definition
    log = store.queues._opened.open_log(definition, 0)
    return [from_record(record) for record in log.read(0).records()]


def test_a_queue_is_declared_as_it_was_asked_for(tmp_path: Path) -> None:
    result = run(
        "queue declare tasks --arg x-message-ttl=5000 --arg dead_letter_exchange=failed "
        "--arg auto-delete=true",
        store=tmp_path,
    )
    assert only_line(result.stdout) == "declared queue tasks"
    with logstore.open(tmp_path, create=False) as store:
        definition = store.queue("tasks", passive=True).definition
        assert definition.auto_delete
        assert definition.arguments.given() == {
            "message_ttl_ms": 5000,
            "dead_letter_exchange": "failed",
        }
    complaint = run("queue declare tasks", store=tmp_path, code=1).stderr
    assert "queue 'tasks' is there with another auto_delete" in only_line(complaint)
    for words, part, code in (
        ("queue declare q --arg colour=red", "a queue has no argument 'colour'", 2),
        ("queue declare q --arg max_length=-1", "max_length=-1 is out of bounds: 0 to", 2),
        ("queue declare q --arg max_length", "'max_length' is not of the form key=value", 2),
        ("queue declare amq.q", "are reserved", 1),
        ("queue declare q --arg x-durable=1", "x-durable is true or false, not '1'", 2),
        ("queue declare q --arg durable=true --arg x-durable=true", "was given twice", 2),
        ("queue declare q --arg max_length=1 --arg max_length=2", "was given twice", 2),
        ("queue declare q --arg exclusive=true", "gone with it", 2),
    ):
        assert part in only_line(run(words, store=tmp_path, code=code).stderr)


def test_a_message_comes_to_the_queues_that_are_bound(tmp_path: Path) -> None:
    run("exchange declare shop --type topic", store=tmp_path)
    for name in ("shipping", "inventory"):
        run(f"queue declare {name}", store=tmp_path)
        result = run(f"queue bind {name} shop order.#", store=tmp_path)
        assert only_line(result.stdout) == f"bound queue {name} to exchange shop"
    result = run(
        "queue publish shop order.created hello --property priority=3 --property content-type=a/b "
        "--header region=eu --header n:=5 --header list:=[1,null]",
        store=tmp_path,
    )
    assert only_line(result.stdout) == "published to 2 queues: inventory, shipping"
    with logstore.open(tmp_path, create=False) as store:
        properties = Properties(
            content_type="a/b", priority=3, headers={"region": "eu", "n": 5, "list": [1, None]}
        )
        expected = Envelope(b"hello", properties, "shop", "order.created")
        assert messages(store, "shipping") == messages(store, "inventory") == [expected]


def test_a_body_may_come_from_standard_input_and_be_any_bytes(tmp_path: Path) -> None:
    run("queue declare q", store=tmp_path)
    result = run("queue publish --json", "", "q", store=tmp_path, stdin=b"\0one\ntwo\n\xff")
    assert json_lines(result) == [{"queues": ["q"]}]
    run("queue publish --acks 1", "", "q", "-", store=tmp_path, stdin=b"")
    run("queue publish", "", "q", "text", store=tmp_path)
    with logstore.open(tmp_path, create=False) as store:
        assert [m.body for m in messages(store, "q")] == [b"\0one\ntwo\n\xff", b"", b"text"]


def test_a_message_that_no_queue_gets_is_dropped_or_refused(tmp_path: Path) -> None:
    run("queue declare q", store=tmp_path)
    result = run("queue publish", "", "nobody", "x", store=tmp_path)
    assert only_line(result.stdout) == (
        "no queue is bound so that it gets the message: it was dropped"
    )
    result = run("queue publish --mandatory", "", "nobody", "x", store=tmp_path, code=1)
    assert "312 NO_ROUTE: no queue gets the message" in only_line(result.stderr)
    complaint = run("queue publish shop k x", store=tmp_path, code=1).stderr
    assert only_line(complaint) == (
        "logstore: there is no exchange called 'shop': 'logstore exchange declare' makes one"
    )


def test_properties_that_are_none_are_refused(tmp_path: Path) -> None:
    run("queue declare q", store=tmp_path)
    for option, part in (
        ("--property=colour=red", "colour is no property: there are content_type"),
        ("--property=headers={}", "headers is no property: give --header"),
        ("--property=priority=high", "priority takes a whole number, not 'high'"),
        ("--property=priority=\u0663", "priority takes a whole number, not '\u0663'"),
        ("--property=priority=256", "priority=256 is out of bounds: 0 to 255"),
        ("--property=priority", "'priority' is not of the form key=value"),
        ("--header=n:={", "n:={ is no JSON"),
        ('--header=n:={"base64":"!"}', "is no JSON"),
    ):
        result = run("queue publish", option, "", "q", "x", store=tmp_path, code=2)
        assert part in only_line(result.stderr)


def test_a_binding_of_a_headers_exchange_is_made_and_taken_away(tmp_path: Path) -> None:
    run("exchange declare shop --type headers", store=tmp_path)
    run("queue declare q", store=tmp_path)
    headers = "--header x-match=any --header n:=5 --header region=eu"
    [fields] = json_lines(run(f"queue bind q shop {headers} --json", store=tmp_path))
    assert fields == {
        "queue": "q",
        "exchange": "shop",
        "routing_key": "",
        "arguments": {"x-match": "any", "n": 5, "region": "eu"},
    }
    for header, queues in (("n:=5", ["q"]), ("n=5", []), ("region=eu", ["q"])):
        result = run("queue publish shop k x --json --header", header, store=tmp_path)
        assert json_lines(result) == [{"queues": queues}]
    complaint = run("queue unbind q shop", store=tmp_path, code=1).stderr
    assert "'q' is not bound to exchange 'shop' with routing key ''" in only_line(complaint)
    assert json_lines(run(f"queue unbind q shop {headers} --json", store=tmp_path)) == [fields]
    assert json_lines(run("queue publish shop k x --json --header n:=5", store=tmp_path)) == [
        {"queues": []}
    ]
    run("queue bind q shop k", store=tmp_path)
    result = run("queue unbind q shop k", store=tmp_path)
    assert only_line(result.stdout) == "unbound queue q from exchange shop"
    for words, part in (
        ("queue bind nobody shop", "no queue called 'nobody'"),
        ("queue bind q nowhere", "no exchange called 'nowhere'"),
        ("queue unbind nobody shop", "no queue called 'nobody'"),
    ):
        assert part in only_line(run(words, store=tmp_path, code=1).stderr)
    assert (
        "x-match is one of"
        in run("queue bind q shop --header x-match=x", store=tmp_path, code=2).stderr
    )


def test_queues_are_listed(tmp_path: Path) -> None:
    run("queue declare b --arg durable=false --arg max_length=5", store=tmp_path)
    run("queue declare a", store=tmp_path)
    lines = run("queue list", store=tmp_path).stdout.splitlines()
    assert lines[0].split()[0] == "QUEUE"
    assert [line.split()[0] for line in lines[1:]] == ["a", "b"]
    assert lines[0].split() == ["QUEUE", "READY", "UNACKED", "CONSUMERS", "ARGUMENTS"]
    assert lines[1].split() == ["a", "0", "0", "0"]
    assert lines[2].endswith("durable=false max_length=5")
    run("queue publish", "", "a", "x", store=tmp_path)
    first, second = json_lines(run("queue list --json", store=tmp_path))
    assert first["name"] == "a"
    assert first["durable"] is True
    assert [first[key] for key in ("ready", "unacked", "consumers", "delayed")] == [1, 0, 0, 0]
    assert second["ready"] == 0
    assert second["arguments"] == {"max_length": 5}


def test_whatever_a_name_holds_a_line_stays_a_line(tmp_path: Path) -> None:
    name = "a\nb\x1b[31m [red]é"
    shown = "a\\nb\\x1b[31m [red]é"
    assert only_line(run("queue declare", name, store=tmp_path).stdout) == f"declared queue {shown}"
    run("queue publish", "", name, "x", store=tmp_path)
    lines = run("queue list", store=tmp_path).stdout.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith(f"{shown}      1        0")
    (fields,) = json_lines(run("queue list --json", store=tmp_path))
    assert fields["name"] == name
    run("queue delete", name, store=tmp_path)
    complaint = only_line(run("queue get", name, store=tmp_path, code=1).stderr)
    assert "\x1b" not in complaint


def test_a_queue_is_deleted_with_its_messages(tmp_path: Path) -> None:
    [fields] = json_lines(run("queue declare q --json", store=tmp_path))
    assert (fields["name"], fields["ready"]) == ("q", 0)
    run("queue publish", "", "q", "x", store=tmp_path)
    complaint = run("queue delete q --if-empty", store=tmp_path, code=1).stderr
    assert "queue 'q' is not empty" in only_line(complaint)
    assert only_line(run("queue delete q", store=tmp_path).stdout) == "deleted queue q"
    assert "no queue called 'q'" in run("queue delete q", store=tmp_path, code=1).stderr
    run("queue declare q", store=tmp_path)
    result = run("queue delete q --if-empty --if-unused --json", store=tmp_path)
    assert json_lines(result) == [{"name": "q", "deleted": True}]
    assert "declare" in run("queue", code=2).stderr
