"""The shape of the repository, held by tests: who imports whom, sizes, help, documentation.

Everything here is read from the source tree with :mod:`ast`, except the command tree and the
public names, which are taken from the installed package.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from logstore.cli.main import main

ROOT = Path(__file__).resolve().parent.parent

# The three layers, lowest first: the folder, and the name that it imports as.
LAYERS = {"segments": "logstore.segments", "logstore": "logstore", "cli": "logstore.cli"}

# What each layer must not import, by dotted prefix, and why. An import that also starts with an
# entry of ALLOWED is fine: `logstore.segments` starts with `logstore`.
FORBIDDEN = {
    "segments": {
        "logstore": "the format knows nothing of what stands above it",
        "click": "only the command line talks to a terminal",
        "rich": "only the command line talks to a terminal",
        "prompt_toolkit": "only the command line talks to a terminal",
        "lmdb": "the format is files, not a database",
    },
    "logstore": {
        "logstore.cli": "the library does not know its command line",
        "click": "only the command line talks to a terminal",
        "rich": "only the command line talks to a terminal",
        "prompt_toolkit": "only the command line talks to a terminal",
    },
    "cli": {},
}
ALLOWED = {"segments": ("logstore.segments",), "logstore": (), "cli": ()}

# Modules that decide and do not act, and what they may import.
PURE = (
    "logstore/groups/assignors.py",
    "logstore/groups/state.py",
    "logstore/groups/resets.py",
    "logstore/queues/dead_letter.py",
    "logstore/queues/definitions.py",
    "logstore/queues/field_table.py",
    "logstore/queues/header_matching.py",
    "logstore/queues/properties.py",
    "logstore/queues/routing.py",
    "logstore/queues/topic_patterns.py",
    "logstore/queues/ledger.py",
    "logstore/queues/ledger_check.py",
    "logstore/queues/ledger_rows.py",
    "logstore/queues/policy.py",
    "logstore/queues/retention.py",
    "logstore/queues/spans.py",
    "logstore/shares/definitions.py",
    "logstore/shares/moves.py",
    "logstore/producer_states.py",
    "logstore/replication/leadership.py",
    "logstore/replication/placement.py",
)
PURE_IMPORTS = (
    "__future__",
    "base64",
    "binascii",
    "collections",
    "dataclasses",
    "datetime",
    "decimal",
    "enum",
    "functools",
    "hashlib",
    "math",
    "struct",
    "itertools",
    "types",
    "typing",
    "uuid",
    "logstore.config",
    "logstore.definitions",
    "logstore.errors",
    "logstore.groups.assignors",
    "logstore.partitions",
    "logstore.queues.definitions",
    "logstore.queues.field_table",
    "logstore.queues.header_matching",
    "logstore.queues.properties",
    "logstore.queues.topic_patterns",
    "logstore.segments.record",
    "logstore.queues.ledger",
    "logstore.queues.ledger_rows",
    "logstore.queues.policy",
    "logstore.queues.spans",
    "logstore.retention",
    "logstore.segments.producer_snapshot",
)

# The top-level folders are no packages of their own.
NOT_PACKAGES = ("segments", "cli")

MAX_LINES = 500


def source_files(folder: str) -> list[Path]:
    """The Python files below a top-level folder, without following links to other folders."""
    found = []
    for directory, names, files in os.walk(ROOT / folder, followlinks=False):
        names[:] = [name for name in names if name != "__pycache__"]
        found += [Path(directory, file) for file in files if file.endswith(".py")]
    return sorted(found)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


LAYER_FILES = [(layer, path) for layer in LAYERS for path in source_files(layer)]
LAYER_IDS = [relative(path) for _, path in LAYER_FILES]
each_layer_file = pytest.mark.parametrize(("layer", "path"), LAYER_FILES, ids=LAYER_IDS)


def module_name(layer: str, path: Path) -> tuple[str, bool]:
    """The dotted name that a file imports as, and whether it is a package's ``__init__``."""
    inside = path.relative_to(ROOT / layer).with_suffix("").parts
    is_package = inside[-1] == "__init__"
    return ".".join((LAYERS[layer], *(inside[:-1] if is_package else inside))), is_package


def imported_names(tree: ast.Module, *, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Every name that a module imports, absolute: ``from a import b`` gives ``a.b``.

    Relative imports are resolved against ``module``; imports inside functions and under
    ``TYPE_CHECKING`` count like all others, and so does ``importlib.import_module("a.b")``.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                keep = len(parts) - node.level + (1 if is_package else 0)
                base = ".".join([*parts[:keep], *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, (ast.Name, ast.Attribute))
            and (node.func.id if isinstance(node.func, ast.Name) else node.func.attr)
            in {"import_module", "__import__"}
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield node.lineno, str(node.args[0].value)


def is_under(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def layering_faults(source: str, *, layer: str, module: str, is_package: bool) -> list[str]:
    """What is wrong with the imports of one module, a sentence each."""
    faults = []
    tree = ast.parse(source)
    for line, name in imported_names(tree, module=module, is_package=is_package):
        if is_under(name, ALLOWED[layer]):
            continue
        for prefix, reason in FORBIDDEN[layer].items():
            if is_under(name, (prefix,)):
                faults.append(f"line {line}: {module} imports {name}: {reason}")
    return faults


# --- layers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", LAYERS)
def test_every_layer_has_modules_to_look_at(layer: str) -> None:
    assert source_files(layer), f"no Python files in {layer}/: the tests below would prove nothing"


@each_layer_file
def test_imports_point_downwards_only(layer: str, path: Path) -> None:
    name, is_package = module_name(layer, path)
    source = path.read_text(encoding="utf-8")
    assert layering_faults(source, layer=layer, module=name, is_package=is_package) == []


@pytest.mark.parametrize("file", PURE)
def test_what_decides_imports_nothing_that_acts(file: str) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    imported = imported_names(tree, module="logstore.groups.here", is_package=False)
    assert [name for _, name in imported if not is_under(name, PURE_IMPORTS)] == []


@pytest.mark.parametrize(
    ("layer", "module", "source"),
    [
        ("segments", "logstore.segments.batch", "import logstore"),
        ("segments", "logstore.segments.batch", "from logstore import log"),
        ("segments", "logstore.segments.batch", "from .. import log"),
        ("segments", "logstore.segments.batch", "from ..log import PartitionLog"),
        ("segments", "logstore.segments.batch", "def f():\n    import logstore.config"),
        ("segments", "logstore.segments.batch", "importlib.import_module('logstore.log')"),
        ("segments", "logstore.segments.batch", "from rich.table import Table"),
        ("logstore", "logstore.log", "from logstore.cli.output import table"),
        ("logstore", "logstore.log", "from .cli import main"),
        ("logstore", "logstore.log", "import click"),
    ],
)
def test_an_import_that_points_upwards_is_noticed(layer: str, module: str, source: str) -> None:
    assert layering_faults(source, layer=layer, module=module, is_package=False)


@pytest.mark.parametrize(
    ("layer", "module", "source"),
    [
        ("segments", "logstore.segments.batch", "from logstore.segments.errors import FormatError"),
        ("segments", "logstore.segments.batch", "from .errors import FormatError\nfrom . import x"),
        ("segments", "logstore.segments.batch", "import logstore_of_somebody_else"),
        ("logstore", "logstore.log", "from logstore.segments.batch import RecordBatch"),
        ("cli", "logstore.cli.read", "import click, logstore, logstore.segments.batch"),
    ],
)
def test_an_import_that_points_downwards_is_fine(layer: str, module: str, source: str) -> None:
    assert layering_faults(source, layer=layer, module=module, is_package=False) == []


def test_nothing_imports_the_top_level_folders_as_packages() -> None:
    faults = []
    for folder in (*LAYERS, "tests", "bench", "examples"):
        for path in source_files(folder):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            # Relative imports come out under the name "here", and so are no top-level names.
            faults += [
                f"{relative(path)}:{line}: import logstore.{name} instead"
                for line, name in imported_names(tree, module="here.module", is_package=False)
                if is_under(name, NOT_PACKAGES)
            ]
    assert faults == []


# --- files ------------------------------------------------------------------------------------


@each_layer_file
def test_every_module_has_a_docstring(layer: str, path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring, f"{relative(path)} ({layer}) does not say what it is for"


@each_layer_file
def test_no_file_is_so_long_that_it_hides_a_second_idea(layer: str, path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES, f"{relative(path)} ({layer}) has {lines} lines"


@pytest.mark.parametrize("layer", ["segments", "logstore"])
def test_the_map_of_the_code_names_every_module_once(layer: str) -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text.partition(f"The rooms of `{layer}/`:\n\n")[2].partition("\n\n")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`([\w/*]+)`", row)]
    modules = {
        path.relative_to(ROOT / layer).with_suffix("").as_posix()
        for path in source_files(layer)
        if path.name != "__init__.py"
    }
    folders = tuple(name.removesuffix("*") for name in named if name.endswith("/*"))
    alone = {name for name in modules if not name.startswith(folders)}
    told = {name for name in named if not name.endswith("/*")}
    assert sorted(alone - told) == [], "docs/architecture.md does not say what these do"
    assert sorted(told - alone) == [], "docs/architecture.md names what is not there"
    assert len(named) == len(set(named))
    assert all(any(name.startswith(folder) for name in modules) for folder in folders)


def project_files() -> list[Path]:
    """The files that git tracks or would track; all files where this is not a git checkout."""
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
        paths = [ROOT / os.fsdecode(name) for name in listed.split(b"\0") if name]
    else:
        paths = [
            Path(directory, file)
            for directory, names, files in os.walk(ROOT)
            if not any(part.startswith(".") for part in Path(directory).relative_to(ROOT).parts)
            for file in files
        ]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def test_no_text_file_names_a_folder_of_somebodys_machine() -> None:
    # Put together from parts, so that this file does not find itself. Sample data is not ours.
    folders = "|".join(["home", "root", "Users", "work", "tmp/scratch"])
    pattern = re.compile(rf"(?<![\w.$}}-])/({folders})/")
    files = [path for path in project_files() if path.parent != ROOT / "examples" / "data"]
    assert ROOT / "pyproject.toml" in files
    faults = []
    for path in files:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a binary file, such as a segment written by a broker
        for number, line in enumerate(text.splitlines(), start=1):
            if pattern.search(line):
                faults.append(f"{relative(path)}:{number}: {line.strip()[:80]}")
    assert faults == []


# --- public names -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "package",
    [
        "logstore",
        "logstore.groups",
        "logstore.queues",
        "logstore.replay",
        "logstore.segments",
        "logstore.shares",
    ],
)
def test_every_public_name_is_there_and_listed_once(package: str) -> None:
    module = importlib.import_module(package)
    names = list(module.__all__)
    assert names, f"{package}.__all__ is empty"
    assert len(names) == len(set(names)), f"{package}.__all__ lists a name twice"
    missing = [name for name in names if not hasattr(module, name)]
    assert missing == []


def test_a_public_name_is_what_a_type_checker_takes_it_for() -> None:
    tree = ast.parse((ROOT / "logstore" / "__init__.py").read_text(encoding="utf-8"))
    told = next(node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(told.test) == "TYPE_CHECKING"
    package = importlib.import_module("logstore")
    names = set()
    for node in told.body:
        assert isinstance(node, ast.ImportFrom)
        assert node.module is not None
        module = importlib.import_module(node.module)
        for alias in node.names:
            name = alias.asname or alias.name
            names.add(name)
            assert getattr(package, name) is getattr(module, alias.name)
    assert names | {"__version__"} == set(package.__all__)
    assert set(package.__all__) <= set(dir(package))


def test_the_format_is_imported_without_the_store() -> None:
    program = "import sys, logstore.segments.batch; print('logstore.store' in sys.modules)"
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"False\n"


# --- the command line -------------------------------------------------------------------------


def commands(
    command: click.Command = main, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command and group of the program, each with the words that call it."""
    if path:
        yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in sorted(command.list_commands(context)):
            child = command.get_command(context, name)
            assert child is not None
            yield from commands(child, (*path, name))


COMMANDS = list(commands())
each_command = pytest.mark.parametrize(
    ("words", "command"), COMMANDS, ids=[" ".join(words) for words, _ in COMMANDS]
)


def test_the_program_has_the_commands_of_its_main_job() -> None:
    names = {" ".join(words) for words, _ in COMMANDS}
    assert names >= {"append", "read", "dump", "check", "topic create", "topic list"}


@each_command
def test_every_command_and_option_has_help(words: tuple[str, ...], command: click.Command) -> None:
    assert command.help, f"logstore {' '.join(words)} has no help"
    silent = [
        option.opts[0]
        for option in command.params
        if isinstance(option, click.Option) and not option.help
    ]
    assert silent == [], f"logstore {' '.join(words)}: options without help"


@each_command
def test_every_command_is_documented(words: tuple[str, ...], command: click.Command) -> None:
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert f"logstore {' '.join(words)}" in text, f"docs/cli.md does not show it ({command.name})"
    undocumented = [
        option.opts[0]
        for option in command.params
        if isinstance(option, click.Option) and not option.hidden and option.opts[0] not in text
    ]
    assert undocumented == [], "docs/cli.md does not name these options"


def test_the_document_of_the_commands_is_what_they_say() -> None:
    path = ROOT / "docs" / "make_cli.py"
    spec = importlib.util.spec_from_file_location("make_cli", path)
    assert spec is not None
    assert spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    current = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert current == maker.document(), (
        "docs/cli.md is not what the commands and docs/cli/ say: change those, and run `make docs`"
    )


def words_of_calls(tree: ast.Module) -> Iterator[list[str | None]]:
    """The constant strings of every list, tuple and call, in order and split at spaces.

    ``None`` stands for whatever is not constant, so that words on both sides of it do not touch.
    """
    for node in ast.walk(tree):
        if isinstance(node, (ast.List, ast.Tuple)):
            elements = node.elts
        elif isinstance(node, ast.Call):
            elements = node.args
        else:
            continue
        found: list[str | None] = []
        for element in elements:
            # An f-string counts as far as its first placeholder: f"topic create {name}".
            part = element.values[0] if isinstance(element, ast.JoinedStr) else element
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                found += part.value.split()
            else:
                found.append(None)
        yield found


def is_called_in(calls: list[list[str | None]], words: tuple[str, ...]) -> bool:
    length = len(words)
    return any(
        tuple(call[start : start + length]) == words
        for call in calls
        for start in range(len(call) - length + 1)
    )


@pytest.fixture(scope="module")
def calls_in_tests() -> list[list[str | None]]:
    """The words of all calls in tests that speak to the command line."""
    calls = []
    for path in source_files("tests"):
        source = path.read_text(encoding="utf-8")
        speaks_to_program = "logstore.cli" in source or "cli" in path.relative_to(ROOT).parts
        if speaks_to_program and path != Path(__file__).resolve():
            calls += list(words_of_calls(ast.parse(source)))
    return calls


@each_command
def test_every_command_is_used_by_a_test(
    words: tuple[str, ...], command: click.Command, calls_in_tests: list[list[str | None]]
) -> None:
    if isinstance(command, click.Group):
        words = next(path for path, _ in COMMANDS if len(path) > len(words) and path[0] == words[0])
    assert is_called_in(calls_in_tests, words), f"no test calls logstore {' '.join(words)}"


def test_a_call_is_found_in_any_spelling() -> None:
    source = (
        'run(["topic", "create", name]); run("topic list"); run(f"read {topic}"); run(x, "dump")'
    )
    calls = list(words_of_calls(ast.parse(source)))
    found = {("topic", "create"), ("topic", "list"), ("read",), ("dump",)}
    assert all(is_called_in(calls, words) for words in found)
    assert not is_called_in(calls, ("topic", "delete"))
