"""``logstore exchange``: declaring, listing, deleting."""

from __future__ import annotations

from pathlib import Path

import logstore

from .program import json_lines, only_line, run


def test_an_exchange_is_declared_as_it_was_asked_for(tmp_path: Path) -> None:
    result = run(
        "exchange declare shop --type topic --arg alternate-exchange=spare --arg auto_delete=true",
        store=tmp_path,
    )
    assert only_line(result.stdout) == "declared exchange shop, type topic"
    with logstore.open(tmp_path, create=False) as store:
        definition = store.exchange("shop").definition
        assert (definition.type, definition.durable) == ("topic", True)
        assert (definition.auto_delete, definition.alternate_exchange) == (True, "spare")
    again = "exchange declare shop --type topic --arg x-alternate-exchange=spare"
    run(f"{again} --arg auto-delete=true", store=tmp_path)
    complaint = run("exchange declare shop --type direct", store=tmp_path, code=1).stderr
    assert "'shop' is there with another type: declared now with 'direct'" in only_line(complaint)
    assert run("exchange declare plain", store=tmp_path).stdout.endswith("type direct\n")


def test_what_cannot_be_declared_is_refused(tmp_path: Path) -> None:
    for words, part, code in (
        ("exchange declare shop --type round", "'round' is not one of", 2),
        ("exchange declare shop --arg colour=red", "an exchange has no argument 'colour'", 2),
        ("exchange declare shop --arg durable", "'durable' is not of the form key=value", 2),
        ("exchange declare shop --arg durable=yes", "durable is true or false, not 'yes'", 2),
        ("exchange declare amq.shop", "are reserved", 1),
    ):
        assert part in only_line(run(words, store=tmp_path, code=code).stderr)


def test_exchanges_are_listed_with_their_bindings(tmp_path: Path) -> None:
    run("exchange declare shop --type topic --arg internal=true", store=tmp_path)
    run("queue declare q", store=tmp_path)
    run("queue bind q shop order.#", store=tmp_path)
    lines = run("exchange list", store=tmp_path).stdout.splitlines()
    assert lines[0].split() == ["EXCHANGE", "TYPE", "BINDINGS", "ARGUMENTS"]
    assert lines[1].split() == ["(default)", "direct", "0"]
    assert lines[-1].split() == ["shop", "topic", "1", "internal=true"]
    found = {
        fields["name"]: fields for fields in json_lines(run("exchange list --json", store=tmp_path))
    }
    assert found["shop"] == {
        "name": "shop",
        "type": "topic",
        "durable": True,
        "auto_delete": False,
        "internal": True,
        "alternate_exchange": None,
        "bindings": 1,
    }
    assert found["amq.match"]["type"] == "headers"
    assert found[""]["type"] == "direct"


def test_an_exchange_is_deleted_with_its_bindings(tmp_path: Path) -> None:
    [fields] = json_lines(run("exchange declare shop --type fanout --json", store=tmp_path))
    assert (fields["name"], fields["type"]) == ("shop", "fanout")
    run("queue declare q", store=tmp_path)
    run("queue bind q shop", store=tmp_path)
    complaint = run("exchange delete shop --if-unused", store=tmp_path, code=1).stderr
    assert "'shop' has bindings: it is in use" in only_line(complaint)
    assert only_line(run("exchange delete shop", store=tmp_path).stdout) == "deleted exchange shop"
    assert "no exchange called 'shop'" in run("exchange delete shop", store=tmp_path, code=1).stderr
    assert "always there" in run("exchange delete amq.topic", store=tmp_path, code=1).stderr
    run("exchange declare shop", store=tmp_path)
    [fields] = json_lines(run("exchange delete shop --if-unused --json", store=tmp_path))
    assert fields == {"name": "shop", "deleted": True}


def test_without_a_command_or_a_store_there_is_help(tmp_path: Path) -> None:
    assert "declare" in run("exchange", code=2).stderr
    assert "which store?" in run("exchange list", code=2).stderr
    run("exchange list", store=tmp_path / "nothing", code=2)
