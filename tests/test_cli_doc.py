"""How docs/cli.md is made of the commands and of docs/cli/.

That it is current is held by ``tests/test_architecture.py``.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import click
import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_cli", DOCS / "make_cli.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_option_that_the_prose_does_not_name_gets_a_row(maker: ModuleType) -> None:
    command = click.Command(
        "x",
        params=[
            click.Option(["--old", "-o"], help="Told.", metavar="N"),
            click.Option(["--new"], help="By the help.", is_flag=True),
        ],
    )
    prose = "Does it.\n\n| Option | Meaning |\n|---|---|\n| `--old N` | In more words. |\n\nMore."
    assert maker._with_options("x", command, prose) == (
        "Does it.\n\n| Option | Meaning |\n|---|---|\n| `--old N` | In more words. |\n"
        "| `--new` | By the help. |\n\nMore."
    )
    without = maker._with_options("x", command, "Does it.\n\n```\nexample\n```")
    assert without.startswith("Does it.\n\n| Option | Meaning |\n|---|---|\n| `--old N`, `-o` |")
    assert without.endswith("| `--new` | By the help. |\n\n```\nexample\n```")


def test_an_option_that_is_not_there_is_an_error(maker: ModuleType) -> None:
    command = click.Command("x", params=[])
    prose = "| Option | Meaning |\n|---|---|\n| `--gone` | Was there. |"
    with pytest.raises(maker.DocumentError, match="no option --gone"):
        maker._with_options("x", command, prose)
