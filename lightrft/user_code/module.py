"""A Python file of the user's own is executed once per process, whatever path leads to it."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any

from lightrft.errors import Refused, error_text
from lightrft.user_code.beside import Beside

MOST_OF_AN_ERROR = 200  # characters
BESIDE: dict[str, Beside] = {}  # by the module's name, which stands for path and content


def own_module(path: str, label: str) -> ModuleType:
    """The module of the file at `path`; it can import files beside it by their names.

    Raises `Refused` where the file does not exist or fails, with its line; the message begins with `label`.
    """
    file = Path(os.path.realpath(path))  # it leaves a link in a circle as it is
    if not file.is_file():
        raise Refused(f"{label}: no such file {path or '(none given)'} (looked in {Path.cwd()})")
    # known to sys.modules while it runs (dataclasses and pickle ask there), under a name that hides no other module
    mark = hashlib.sha256(str(file).encode("utf-8", "surrogateescape") + b"\0" + _content(file, label))
    name = f"own_file_{mark.hexdigest()[:12]}"
    return sys.modules[name] if name in sys.modules else _executed(file, name, label)


def helpers_of(module: ModuleType) -> AbstractContextManager[None]:
    """Inside, the functions of an own module find the files beside it, also where they import them late."""
    return BESIDE[module.__name__].importable()


def with_helpers(module: ModuleType, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, called inside `helpers_of` its module."""

    @wraps(function)
    def called(*arguments: Any, **named: Any) -> Any:
        with helpers_of(module):
            return function(*arguments, **named)

    return called


def _executed(file: Path, name: str, label: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise Refused(f"{label}: {file} is not a Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        BESIDE[name] = Beside(file, module, label)
        with helpers_of(module):
            spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, Refused) or not isinstance(error, (Exception, SystemExit)):
            raise
        raise Refused(f"{label}: importing the file failed: {_cause(error, file)}") from error
    return module


def _content(file: Path, label: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Refused(f"{label}: {file}: {error.strerror}") from error


def cause(error: BaseException, module: ModuleType) -> str:
    """In one line, with the last line that was reached of the module's file or of one beside it; else the innermost."""
    frames, folder = traceback.extract_tb(error.__traceback__), Path(str(module.__file__)).parent
    frame = ([frame for frame in frames if Path(frame.filename).parent == folder] or frames)[-1]
    return f"{error_text(error, MOST_OF_AN_ERROR)} ({Path(frame.filename).name}:{frame.lineno})"


def _cause(error: BaseException, file: Path) -> str:
    """In one line, with the last line of the file that was reached."""
    text = error_text(error, MOST_OF_AN_ERROR)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    return f"{text} (line {lines[-1]})" if lines else text
