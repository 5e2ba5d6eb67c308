"""torchvision's usual wheel beside a torch without CUDA: its operators cannot be loaded, and then its import fails.

Processors of images and videos use its Python part alone. So the two operators that the import describes are declared
before, where the library of operators does not load; called, they fail.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


class _BeforeTorchvision(importlib.abc.MetaPathFinder):
    """Finds nothing; it is asked before, when torchvision is imported, and torch then is too."""

    def __init__(self) -> None:
        self.declared: Any = None  # operators live as long as their library

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: Any = None) -> None:
        if fullname == "torchvision" and self.declared is None:
            self.declared = _declared_where_missing()


def _declared_where_missing() -> Any:
    """The library that declares them, or False."""
    found = importlib.machinery.PathFinder.find_spec("torchvision")
    folders = [] if found is None else list(found.submodule_search_locations or [])
    libraries = [library for folder in folders for library in Path(folder).glob("_C.*")]
    if not libraries:
        return False
    import torch

    try:
        torch.ops.load_library(libraries[0])
    except OSError:
        declared = torch.library.Library("torchvision", "FRAGMENT")
        with suppress(RuntimeError):  # another has declared them
            for operator in OPERATORS:
                declared.define(operator)
        return declared
    return False


def declare_where_missing() -> None:
    """When torchvision is imported, now or later."""
    if not any(isinstance(finder, _BeforeTorchvision) for finder in sys.meta_path):
        finds = sys.meta_path.index(importlib.machinery.PathFinder)  # after others of its kind: they may not look
        sys.meta_path.insert(finds, _BeforeTorchvision())
