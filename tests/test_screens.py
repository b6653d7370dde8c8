"""The pictures in docs/screens: what they show can be run, and they are there."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")

pytest.importorskip("pty")

SHOWN = {
    "dump": "zstd",
    "hexdump": "partitionLeaderEpoch",
    "index": "holds the offset",
    "stats": "Records by size",
    "debug": "it is true here",
    "bisect": "what that record changed",
    "ledger": "the ledger holds",
}
"""Something that each command prints."""


@pytest.fixture(scope="module")
def screens() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_screens", ROOT / "docs/make_screens.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def place(screens: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("screens")
    with screens.prepared(path):
        yield path


@pytest.mark.parametrize("name", SHOWN)
def test_what_a_picture_shows_can_be_run(screens: ModuleType, place: Path, name: str) -> None:
    (screen,) = [one for one in screens.SCREENS_TO_DRAW if one.name == name]
    output = screens.output_of(screen, place)
    assert SHOWN[name] in output
    assert "\x1b[" in output, "a terminal gets colours"
    svg = screens.drawn(screen, output)
    assert SHOWN[name].replace(" ", "&#160;") in svg
    assert str(place) not in svg


def test_every_picture_is_drawn_and_shown(screens: ModuleType) -> None:
    names = {screen.name for screen in screens.SCREENS_TO_DRAW}
    assert names == set(SHOWN) == {path.stem for path in (ROOT / "docs/screens").glob("*.svg")}
    told = README + (ROOT / "docs/inspector.md").read_text(encoding="utf-8")
    assert names == set(re.findall(r"screens/(\w+)\.svg", told))


def test_no_picture_names_a_machine(screens: ModuleType) -> None:
    for path in (ROOT / "docs/screens").glob("*.svg"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"/(home|tmp|root|Users)/", text), path.name
