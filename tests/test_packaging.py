"""What pyproject.toml says, what lies in the repository, and what is installed agree.

The three top-level folders import as one package (see ``[tool.setuptools.package-dir]``), and two
links let an uninstalled checkout resolve the same names. Both say the same thing twice, so a test
holds them together.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import sysconfig
import tomllib
from pathlib import Path
from typing import Any

import pytest

import logstore
import logstore.cli
import logstore.segments

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES: list[str] = PYPROJECT["tool"]["setuptools"]["packages"]
PACKAGE_DIR: dict[str, str] = PYPROJECT["tool"]["setuptools"]["package-dir"]

# Where CI has installed the wheel it sets this to "installed", so that a test run which silently
# picks up the source tree instead is a failure.
UNDER_TEST = os.environ.get("LOGSTORE_UNDER_TEST", "any")


def folder_of(package: str) -> Path:
    """The folder of a package as setuptools finds it: by its own entry, or by its parent's."""
    if package in PACKAGE_DIR:
        return ROOT / PACKAGE_DIR[package]
    parent, _, name = package.rpartition(".")
    return folder_of(parent) / name if parent else ROOT / name


def link_of(package: str) -> Path:
    return ROOT.joinpath(*package.split("."))


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_of_the_wheel_has_its_folder(package: str) -> None:
    assert (folder_of(package) / "__init__.py").is_file()


def test_every_folder_with_code_is_a_package_of_the_wheel() -> None:
    # os.walk with followlinks sees logstore/segments and logstore/cli under their import names.
    found = {
        ".".join(Path(directory).relative_to(ROOT).parts)
        for directory, _, files in os.walk(ROOT / "logstore", followlinks=True)
        if any(file.endswith(".py") for file in files)
    }
    assert found == set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGE_DIR)
def test_every_package_dir_has_a_relative_link(package: str) -> None:
    link = link_of(package)
    assert link.is_symlink(), f"{link.relative_to(ROOT)} is not a link"
    assert not os.path.isabs(os.readlink(link))
    assert link.resolve() == ROOT / PACKAGE_DIR[package]


def test_every_link_has_a_package_dir() -> None:
    links = {
        ".".join(entry.relative_to(ROOT).parts)
        for entry in (ROOT / "logstore").iterdir()
        if entry.is_symlink()
    }
    assert links == set(PACKAGE_DIR)


def test_the_linter_leaves_the_links_out_and_bans_the_short_names() -> None:
    ruff = PYPROJECT["tool"]["ruff"]
    banned = ruff["lint"]["flake8-tidy-imports"]["banned-api"]
    assert set(ruff["extend-exclude"]) >= {package.replace(".", "/") for package in PACKAGE_DIR}
    assert set(banned) >= set(PACKAGE_DIR.values())


def test_the_version_is_the_same_everywhere() -> None:
    version = PYPROJECT["project"]["version"]
    assert logstore.__version__ == version
    assert importlib.metadata.version("logstore") == version, "installed before the last change?"
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[?{re.escape(version)}\b", changelog, re.MULTILINE)


def test_the_package_under_test_is_the_one_that_was_asked_for() -> None:
    assert UNDER_TEST in {"any", "installed"}
    installed = Path(sysconfig.get_path("purelib")).resolve()
    for module in (logstore, logstore.segments, logstore.cli):
        assert module.__file__ is not None
        file = Path(module.__file__).resolve()
        homes = [installed] if UNDER_TEST == "installed" else [installed, ROOT]
        assert any(file.is_relative_to(home) for home in homes), f"{file} is in none of {homes}"


def test_the_type_marker_is_beside_the_code() -> None:
    assert logstore.__file__ is not None
    assert (Path(logstore.__file__).parent / "py.typed").is_file()


def test_the_program_is_installed_under_its_name() -> None:
    scripts = importlib.metadata.entry_points(group="console_scripts", name="logstore")
    assert [script.value for script in scripts] == ["logstore.cli.start:main"]
    assert callable(next(iter(scripts)).load())


def test_the_licence_and_the_readme_are_where_the_metadata_says() -> None:
    project = PYPROJECT["project"]
    assert (ROOT / project["readme"]).is_file()
    for name in project["license-files"]:
        assert "Apache License" in (ROOT / name).read_text(encoding="utf-8")
