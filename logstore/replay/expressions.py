"""Expressions over a record, and over the state that a fold has made of it: parsed, checked node by
node against a list of what is allowed, and compiled.

An expression is written as Python would be: ``key.startswith("order-") and json.total > 100``. What
it may look at are ``key``, ``value``, ``json`` (the value, parsed), ``headers``, ``offset``,
``timestamp``, ``partition`` and ``topic``, each also as ``record.key`` and so on; with a fold
``state``, too. It can look into values, compare, calculate, and call a few pure functions
(``logstore.replay.functions``). There are no loops, no assignments, no names with an underscore in
front, and nothing that formats. How values behave is said in ``logstore.replay.operators``.

The text is never executed. Out of its syntax tree another one is built, in which every operation is
a call of one of our own functions, and names are only those that are written here; that tree is
compiled, with no builtins in reach.
"""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import CodeType
from typing import Any, NoReturn

from logstore.errors import InvalidInputError
from logstore.fetcher import ConsumerRecord
from logstore.replay.functions import FUNCTIONS, METHODS, Callee
from logstore.replay.operators import (
    MAX_BITS,
    OPERATORS,
    RefusedError,
    get,
    item,
    kind_of,
    piece,
    plain,
    text_of,
)
from logstore.segments.record import Header
from logstore.times import parse_time

__all__ = ["Expression", "ExpressionError", "compile_expression"]

MAX_LENGTH = 4_000
"""The most characters of an expression."""
MAX_DEPTH = 60
"""How deep expressions may be nested."""
_MOST_SHOWN = 120
"""The most characters of an expression that an error shows."""

_FIELDS = ("topic", "partition", "offset", "timestamp", "key", "value", "json", "headers")
_PLACES = {name: place for place, name in enumerate(ConsumerRecord._fields)}
_WRAPPED = {"key": "_text", "value": "_text", "headers": "_headers"}
"""What makes the value of a field out of what stands in the record."""
_SCALARS = frozenset(_FIELDS) - {"json", "headers"}
_CONSTANTS = {"null": None, "true": True, "false": False}

Evaluate = Callable[[ConsumerRecord, Any], Any]


class ExpressionError(InvalidInputError):
    """An expression is wrong, or cannot go on with a value; ``column`` counts from 1."""

    def __init__(self, text: str, reason: str, column: int | None = None) -> None:
        place = "" if column is None else f", column {column}"
        shown = text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + "..."
        super().__init__(f"expression {shown!r}{place}: {reason}")
        self.text = text
        self.reason = reason
        self.column = column


class Expression:
    """A compiled expression; call it with a record and, where there is one, a state."""

    def __init__(self, text: str, code: CodeType, names: frozenset[str], now_ms: int) -> None:
        self.text = text
        self.names = names
        """The fields that it looks at, of the record and ``state``."""
        self._code = code
        self._namespace = {**_NAMESPACE, "_json": _JsonOnce().parse, "_call_time": _time_at(now_ms)}
        self.evaluate: Evaluate = eval(code, dict(self._namespace))
        """The same without a frame around it: for loops that hand what it raises to
        :meth:`failure`."""

    def __call__(self, record: ConsumerRecord, state: Any = None) -> Any:
        """The value; raises ExpressionError, which names the record."""
        try:
            return self.evaluate(record, state)
        except Exception as error:  # a state's own code may raise anything
            raise self.failure(error, record) from error

    def failure(self, error: Exception, record: ConsumerRecord) -> ExpressionError:
        """The error that says where, and at which record, ``evaluate`` gave up."""
        place = f"at {record.topic}-{record.partition}, offset {record.offset}"
        if isinstance(error, RefusedError):
            return ExpressionError(self.text, f"{error}, {place}", self._column(error))
        text = " ".join(str(error).split()) or "it failed"
        return ExpressionError(
            self.text, f"{type(error).__name__}: {text[:200]}, {place}", self._column(error)
        )

    def _column(self, error: Exception) -> int | None:
        traceback = error.__traceback__
        while traceback is not None:
            code = traceback.tb_frame.f_code
            if code.co_filename == _FILE_NAME:
                line, _, start, _ = list(code.co_positions())[traceback.tb_lasti // 2]
                if line is not None and start is not None:
                    return _column_of(self.text, line, start)
            traceback = traceback.tb_next
        return None

    def missing(self, record: ConsumerRecord, state: Any = None) -> list[str]:
        """The fields that it asks for and does not find: what to tell whoever has misspelt one,
        where nothing was ever true."""
        found: list[str] = []

        def tracing(look: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
            def traced(value: Any, name: Any) -> Any:
                result = look(value, name)
                if result is None and value is not None and str(name) not in found:
                    found.append(str(name))
                return result

            return traced

        namespace = {**self._namespace, "_get": tracing(get), "_item": tracing(item)}
        try:
            eval(self._code, namespace)(record, state)
        except Exception:  # noqa: BLE001 - what it raises was told before
            return found
        return found

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"


def compile_expression(
    text: str, *, with_state: bool = False, now_ms: int = 0, extra: Sequence[str] = ()
) -> Expression:
    """The expression that ``text`` says; ``with_state`` where there is a fold. ``extra`` are names
    of more fields: what it is called with as a state is a dict that has them.

    ``now_ms`` is what ages in ``time("10m")`` count back from. Raises ExpressionError, with the
    column, for whatever is not allowed; nothing of it has been executed then.
    """
    if not isinstance(text, str):
        raise InvalidInputError(f"an expression is text, not {type(text).__name__}")
    if len(text) > MAX_LENGTH:
        raise ExpressionError(
            text, f"it has {len(text)} characters; at most {MAX_LENGTH} are allowed"
        )
    compiler = _Compiler(text, with_state=with_state, extra=extra)
    tree = compiler.compile()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        code = compile(tree, _FILE_NAME, "eval")
    return Expression(text, code, frozenset(compiler.names), now_ms)


_FILE_NAME = "<expression>"


def _column_of(text: str, line: int, byte: int) -> int | None:
    """A column of the text, from 1, for a place in bytes as Python's tree has it; None where the
    expression has several lines."""
    lines = text.splitlines() or [""]
    if len(lines) > 1 or line != 1:
        return None
    return len(lines[0].encode("utf-8", "replace")[:byte].decode("utf-8", "ignore")) + 1


class _Compiler:
    """Builds the tree that is compiled out of the one that was written."""

    def __init__(self, text: str, *, with_state: bool, extra: Sequence[str]) -> None:
        self._text = text
        self._extra = extra
        self._with_state = with_state
        self._temporaries = 0
        self.names: set[str] = set()

    def compile(self) -> ast.Expression:
        tree = self._parse()
        body = self._build(tree.body, 0)
        arguments = ast.arguments([], [ast.arg("_r"), ast.arg("_s")], None, [], [], None, [])
        whole = ast.Expression(ast.Lambda(arguments, body))
        return ast.fix_missing_locations(whole)

    def _parse(self) -> ast.Expression:
        # Blanks in front would be an indentation; as many columns of nothing are none.
        shown = self._text
        blanks = len(shown) - len(shown.lstrip())
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(shown.lstrip(), _FILE_NAME, "eval")
        except SyntaxError as error:
            reason = str(error.msg) if shown.strip() else "nothing is written here"
            one_line = "\n" not in shown.strip()
            column = max(error.offset or 1, 1) + blanks if one_line else None
            raise ExpressionError(shown, reason, column) from None
        except (RecursionError, MemoryError):
            raise ExpressionError(shown, "it is nested too deeply") from None
        except ValueError as error:  # zero bytes, lone surrogates
            raise ExpressionError(shown, str(error)) from None
        width = len(shown[:blanks].encode())
        if width and "\n" not in shown:
            for node in ast.walk(tree):
                if isinstance(node, ast.expr):
                    node.col_offset += width
                    node.end_col_offset = (node.end_col_offset or 0) + width
        return tree

    def _refuse(self, node: ast.AST, reason: str) -> NoReturn:
        line, byte = getattr(node, "lineno", 0), getattr(node, "col_offset", 0)
        raise ExpressionError(self._text, reason, _column_of(self._text, line, byte))

    def _build(self, node: ast.expr, depth: int) -> ast.expr:
        build = _BUILDERS.get(type(node))
        if build is None:
            self._refuse(node, f"{_spelled(node)} is not allowed")
        if depth > MAX_DEPTH:
            self._refuse(node, f"it is nested more than {MAX_DEPTH} deep")
        return ast.copy_location(build(self, node, depth + 1), node)

    def _call(self, name: str, *arguments: ast.expr) -> ast.expr:
        return ast.Call(ast.Name(name, ast.Load()), list(arguments), [])

    # Names and constants ----------------------------------------------------------------------

    def _name(self, node: Any, _depth: int) -> ast.expr:
        if node.id in _CONSTANTS:
            return ast.Constant(_CONSTANTS[node.id])
        if node.id == "state":
            if not self._with_state:
                self._refuse(node, "there is no state without a fold")
            self.names.add("state")
            return self._call("_plain", ast.Name("_s", ast.Load()))
        if node.id == "record":
            self._refuse(node, f"a record by itself is no value; it has {', '.join(_FIELDS)}")
        return self._field(node, node.id)

    def _field(self, node: ast.AST, name: str) -> ast.expr:
        if name in self._extra:
            self.names.add(name)
            return self._call("_get", ast.Name("_s", ast.Load()), ast.Constant(name))
        if name not in _FIELDS:
            more = ("record", *(("state",) if self._with_state else ()))
            known = ", ".join(dict.fromkeys((*_FIELDS, *self._extra, *more)))
            self._refuse(node, f"there is no {name!r}; there are {known}")
        self.names.add(name)
        place = ast.Constant(_PLACES["value" if name == "json" else name])
        found = ast.Subscript(ast.Name("_r", ast.Load()), place, ast.Load())
        if name == "json":
            return self._call("_json", found)
        return self._call(_WRAPPED[name], found) if name in _WRAPPED else found

    def _constant(self, node: Any, _depth: int) -> ast.expr:
        value = node.value
        if isinstance(value, bytes):
            value = text_of(value)
        if value is not None and not isinstance(value, (str, int, float)):
            self._refuse(node, f"{_spelled(node)} is not allowed")
        if isinstance(value, int) and value.bit_length() > MAX_BITS:
            self._refuse(node, f"a number has at most {MAX_BITS} bits")
        return ast.Constant(value)

    def _list(self, node: Any, depth: int) -> ast.expr:
        return ast.Tuple([self._build(one, depth) for one in node.elts], ast.Load())

    # Operators --------------------------------------------------------------------------------

    def _both(self, node: Any, depth: int) -> ast.expr:
        return ast.BoolOp(node.op, [self._build(value, depth) for value in node.values])

    def _unary(self, node: Any, depth: int) -> ast.expr:
        operand = self._build(node.operand, depth)
        if isinstance(node.op, ast.Not):
            return ast.UnaryOp(node.op, operand)
        return self._call(_helper(node.op), operand)

    def _binary(self, node: Any, depth: int) -> ast.expr:
        if type(node.op).__name__ not in OPERATORS:
            self._refuse(node, "this operator is not allowed")
        left, right = self._build(node.left, depth), self._build(node.right, depth)
        return self._call(_helper(node.op), left, right)

    def _choice(self, node: Any, depth: int) -> ast.expr:
        parts = (self._build(part, depth) for part in (node.test, node.body, node.orelse))
        return ast.IfExp(*parts)

    def _compare(self, node: Any, depth: int) -> ast.expr:
        """``a < b < c`` is ``a < b and b < c``, with ``b`` looked at once."""
        parts: list[ast.expr] = []
        left = self._build(node.left, depth)
        last = len(node.ops) - 1
        for index, (operator, written) in enumerate(zip(node.ops, node.comparators, strict=True)):
            right = self._build(written, depth)
            again = right
            if index < last:
                name = f"_t{self._temporaries}"
                self._temporaries += 1
                right = ast.NamedExpr(ast.Name(name, ast.Store()), right)
                again = ast.Name(name, ast.Load())
            parts.append(ast.copy_location(self._compared(operator, left, right, written), node))
            left = again
        return parts[0] if len(parts) == 1 else ast.BoolOp(ast.And(), parts)

    def _compared(
        self, operator: ast.cmpop, left: ast.expr, right: ast.expr, written: ast.expr
    ) -> ast.expr:
        if isinstance(operator, (ast.Is, ast.IsNot)):
            named = isinstance(written, ast.Name) and written.id in _CONSTANTS
            if not named and not (
                isinstance(written, ast.Constant)
                and (written.value is None or isinstance(written.value, bool))
            ):
                self._refuse(written, "'is' compares with None, True and False; otherwise write ==")
        elif not isinstance(operator, (ast.Eq, ast.NotEq)):
            return self._call(_helper(operator), left, right)
        return ast.Compare(left, [operator], [right])

    # Looking into values, and calling ---------------------------------------------------------

    def _attribute(self, node: Any, depth: int) -> ast.expr:
        self._check_name(node, node.attr)
        if isinstance(node.value, ast.Name):
            name = node.value.id
            if name == "record":
                return self._field(node, node.attr)
            if name in _SCALARS:
                self._refuse(node, f"{name} has no fields, and so no {node.attr!r}")
        return self._call("_get", self._build(node.value, depth), ast.Constant(node.attr))

    def _subscript(self, node: Any, depth: int) -> ast.expr:
        value, index = self._build(node.value, depth), node.slice
        if not isinstance(index, ast.Slice):
            return self._call("_item", value, self._build(index, depth))
        if index.step is not None:
            self._refuse(index.step, "a piece has no step")
        bounds = (
            ast.Constant(None) if bound is None else self._build(bound, depth)
            for bound in (index.lower, index.upper)
        )
        return self._call("_piece", value, *bounds)

    def _called(self, node: Any, depth: int) -> ast.expr:
        if node.keywords or any(isinstance(one, ast.Starred) for one in node.args):
            self._refuse(node, "a call takes plain arguments only")
        arguments = [self._build(one, depth) for one in node.args]
        if isinstance(node.func, ast.Name):
            name = node.func.id
            self._check_callee(node, name, _CALLABLE)
            return self._call("_call_" + name, *arguments)
        if not isinstance(node.func, ast.Attribute):
            self._refuse(node, "this cannot be called")
        name = node.func.attr
        self._check_name(node.func, name)
        self._check_callee(node, name, METHODS)
        return self._call("_method_" + name, self._build(node.func.value, depth), *arguments)

    def _check_callee(self, node: Any, name: str, known: Mapping[str, Callee]) -> None:
        callee = known.get(name)
        if callee is None:
            self._refuse(node.func, f"{name}() cannot be called; {', '.join(sorted(known))} can")
        count, least, most = len(node.args), callee.least, callee.most
        if not least <= count <= most:
            counts = f"{least} to {most}" if most > least else least
            self._refuse(node, f"{name}() takes {counts} arguments, not {count}")

    def _check_name(self, node: ast.AST, name: str) -> None:
        if name.startswith("_"):
            self._refuse(node, f"names do not begin with an underscore: {name!r}")


_BUILDERS: dict[type[ast.expr], Callable[[_Compiler, Any, int], ast.expr]] = {
    ast.Attribute: _Compiler._attribute,
    ast.BinOp: _Compiler._binary,
    ast.BoolOp: _Compiler._both,
    ast.Call: _Compiler._called,
    ast.Compare: _Compiler._compare,
    ast.Constant: _Compiler._constant,
    ast.IfExp: _Compiler._choice,
    ast.List: _Compiler._list,
    ast.Name: _Compiler._name,
    ast.Subscript: _Compiler._subscript,
    ast.Tuple: _Compiler._list,
    ast.UnaryOp: _Compiler._unary,
}
"""What is allowed. A node of any other kind is refused."""

_SPELLED = {
    ast.Await: "await",
    ast.Dict: "a mapping",
    ast.DictComp: "a loop",
    ast.FormattedValue: "formatting",
    ast.GeneratorExp: "a loop",
    ast.JoinedStr: "formatting",
    ast.Lambda: "a function",
    ast.ListComp: "a loop",
    ast.NamedExpr: "an assignment",
    ast.Set: "a set",
    ast.SetComp: "a loop",
    ast.Slice: "a piece here",
    ast.Starred: "a star",
    ast.Yield: "yield",
    ast.YieldFrom: "yield",
}


def _spelled(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return "..." if node.value is ... else repr(node.value)
    return _SPELLED.get(type(node), type(node).__name__)


def _helper(operator: ast.AST) -> str:
    return "_op_" + type(operator).__name__


# What the compiled code can reach ---------------------------------------------------------------


class _JsonOnce:
    """Parses a value as JSON; the last one is remembered, for an expression may name it twice."""

    def __init__(self) -> None:
        self._value: bytes | None = None
        self._parsed: Any = None

    def parse(self, value: bytes | None) -> Any:
        """What the JSON says; null where there is none."""
        if value is None:
            return None
        if value is not self._value:
            self._value = None
            try:
                self._parsed = json.loads(value)
            except (ValueError, RecursionError):
                self._parsed = None
            self._value = value
        return self._parsed


def _headers_of(headers: Sequence[Header]) -> dict[str, str | None]:
    """By name; of several headers of one name the last counts, as for Kafka's clients."""
    return {name: text_of(value) for name, value in headers}


def _time_at(now_ms: int) -> Callable[[Any], int | None]:
    def time(text: Any) -> int | None:
        if text is None:
            return None
        if not isinstance(text, str):
            raise RefusedError(f"time() takes text, not a {kind_of(text)}")
        try:
            return parse_time(text, now_ms)
        except InvalidInputError as error:
            raise RefusedError(str(error)) from None

    return time


_CALLABLE = {**FUNCTIONS, "time": Callee(_time_at(0))}

_NAMESPACE: dict[str, Any] = {
    "__builtins__": {},
    "_get": get,
    "_headers": _headers_of,
    "_item": item,
    "_piece": piece,
    "_plain": plain,
    "_text": text_of,
    **{f"_op_{name}": function for name, function in OPERATORS.items()},
    **{f"_call_{name}": callee.function for name, callee in FUNCTIONS.items()},
    **{f"_method_{name}": callee.function for name, callee in METHODS.items()},
}
"""Everything that a compiled expression can name; ``_json`` and ``_call_time`` are added."""
