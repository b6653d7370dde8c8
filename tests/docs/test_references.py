"""What the documents point at is there: files, headings, tests, modules, names."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
        ROOT / "examples" / "data" / "README.md",
        ROOT / "tests" / "golden" / "README.md",
    ]
)
IDS = [path.relative_to(ROOT).as_posix() for path in DOCUMENTS]
each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=IDS)

_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#{1,6} (.*)$", re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FOLDERS = "tests|segments|logstore|cli|bench|examples|docs"
_PATH = re.compile(rf"`((?:{_FOLDERS})/[\w./-]+)(?:::(\w+))?`")
_DOTTED = re.compile(r"`(logstore(?:\.\w+)+)")
NO_NAMES = {"logstore.error": "the type of a message"}
NO_PATHS = {"docs/cli/NAME.md": "stands for many"}


def prose_of(path: Path) -> str:
    """A document without its blocks of code, in which ``#`` begins a comment."""
    return _FENCED.sub("", path.read_text(encoding="utf-8"))


def anchors_of(path: Path) -> set[str]:
    """What its headings are called in links: as GitHub makes it, counted where they are equal."""
    found: set[str] = set()
    for heading in _HEADING.findall(prose_of(path)):
        text = _LINK.sub(lambda link: link[0][1 : link[0].index("]")], heading)
        slug = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
        number = 0
        while (name := f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(name)
    return found


@each_document
def test_every_link_leads_somewhere(document: Path) -> None:
    astray = []
    for link in _LINK.findall(prose_of(document)):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            astray.append(link)
    assert astray == []


@each_document
def test_every_file_and_test_that_is_named_is_there(document: Path) -> None:
    missing = []
    for name, test in _PATH.findall(prose_of(document)):
        paths = [path for path in (ROOT / name, ROOT / f"{name}.py") if path.exists()]
        found = paths or list(ROOT.glob(name))
        if name not in NO_PATHS and not found:
            missing.append(name)
        elif test and f"def {test}(" not in found[0].read_text(encoding="utf-8"):
            missing.append(f"{name}::{test}")
    assert missing == []


@each_document
def test_every_dotted_name_can_be_imported(document: Path) -> None:
    names = set(_DOTTED.findall(prose_of(document))) - set(NO_NAMES)
    assert [name for name in sorted(names) if not _is_there(name)] == []


def _is_there(name: str) -> bool:
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def test_every_guide_is_in_the_map_of_the_documents() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    guides = [path.name for path in (ROOT / "docs").glob("*.md")]
    assert [name for name in guides if f"(docs/{name})" not in readme] == []
