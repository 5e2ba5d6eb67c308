"""`import helper` in a user's file means the helper.py beside it."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

from lightrft.errors import Refused


class Beside(MetaPathFinder):
    """Finds the files beside a user's file, while its code runs and for nobody else.

    So two files in two folders have their own helper.py each. No folder is added to sys.path, where other code would
    find its files (a folder wandb/ without the package). A helper whose name already means another module is refused;
    names of the standard library mean the standard library.
    """

    def __init__(self, file: Path, module: ModuleType, label: str) -> None:
        self._folder, self._label = file.parent, label
        self._helpers: set[str] = set()  # names of the modules that were found beside the file
        self._modules = {file.stem: module}  # for a helper that imports it
        self._check(file)

    @contextmanager
    def importable(self) -> Iterator[None]:
        hidden = {name: sys.modules[name] for name in self._modules if name in sys.modules}
        writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # a refused run leaves nothing beside the file
        sys.modules.update(self._modules)
        sys.meta_path.append(self)
        try:
            yield
        finally:
            sys.meta_path.remove(self)
            sys.dont_write_bytecode = writes
            ours = [name for name in sys.modules if name.split(".")[0] in self._helpers or name in self._modules]
            self._modules |= {name: sys.modules.pop(name) for name in ours}
            sys.modules.update(hidden)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        file = self._file(fullname) if path is None else None
        if file is None:
            return None
        self._check(file)
        self._helpers.add(fullname)
        inside = [str(file.parent)] if file.name == "__init__.py" else None
        return importlib.util.spec_from_file_location(fullname, file, submodule_search_locations=inside)

    def _file(self, name: str) -> Path | None:
        files = (self._folder / f"{name}.py", self._folder / name / "__init__.py")
        return next((file for file in files if file.is_file()), None)

    def _check(self, file: Path) -> None:
        for name in sorted(_imported(file) - set(sys.stdlib_module_names) - self._helpers):
            helper, other = self._file(name), _file_without_us(name)
            if helper is not None and other is not None and Path(other).resolve() != helper.resolve():
                means = f"'import {name}' in {file.name} means {other}, not {helper}"
                raise Refused(f"{self._label}: {means}; rename {helper.name}, and import it by its new name")


def _imported(file: Path) -> set[str]:
    """First parts of the names that the file imports anywhere; none where it cannot be read as Python."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return set()
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 0]
    return {name.split(".")[0] for name in names}


def _file_without_us(name: str) -> str | None:
    loaded = sys.modules.get(name)
    spec = PathFinder.find_spec(name) if loaded is None else None
    return getattr(loaded, "__file__", None) or (spec.origin if spec is not None else None)
