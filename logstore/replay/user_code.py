"""Functions that users name: ``module:function``, or ``path/to/file.py:function``."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from logstore.errors import InvalidInputError
from logstore.replay.errors import UserCodeError

__all__ = ["load_function"]


def load_function(text: str) -> Callable[..., Any]:
    """The function that ``module:function`` names; modules are also looked for in the current
    directory. A dotted function is looked for inside a class.

    Raises InvalidInputError where there is none, UserCodeError for what importing it raises.
    """
    module_name, colon, name = text.rpartition(":")
    if not colon or not module_name or not all(part.isidentifier() for part in name.split(".")):
        raise InvalidInputError(
            f"{text!r} names no function: module:function, or path/to/file.py:function"
        )
    found: Any = _load_module(module_name)
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise InvalidInputError(f"{module_name} has no {name!r}") from None
    if not callable(found):
        raise InvalidInputError(f"{text}: a {type(found).__name__} cannot be called")
    function: Callable[..., Any] = found
    return function


def _load_module(name: str) -> ModuleType:
    here = os.getcwd()
    if here not in sys.path:  # as `python -m` does
        sys.path.insert(0, here)
    try:
        if name.endswith(".py"):
            return _load_file(name)
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise InvalidInputError(f"there is no module {name!r}") from None
        raise UserCodeError(f"importing {name}", error, None) from error
    except InvalidInputError:
        raise
    except Exception as error:
        raise UserCodeError(f"importing {name}", error, None) from error


def _load_file(path: str) -> ModuleType:
    if not os.path.isfile(path):
        raise InvalidInputError(f"{path}: there is no such file")
    name = os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InvalidInputError(f"{path}: this is no module")
    module = importlib.util.module_from_spec(spec)
    # States hold objects of its classes, and are copied by way of their module's name.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
