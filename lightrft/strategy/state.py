"""The state of a model and its optimizer, in one format for every strategy and any number of ranks.

A tensor is known by its Hugging Face name and a kind: WEIGHT, its value as finely as anyone holds it (where it trains,
that is the float32 master weight), AVERAGE, a moving average of that, or one of the optimizer's moments. What a rank
holds of it under FSDP2 or ZeRO is a range of the tensor when it is flattened, a `Piece`. Each rank writes its own into
`rank_00000.safetensors`, of what several ranks hold alike a share; so every element is written once, and any range can
be read again, whoever wrote it.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lightrft.errors import Damaged

WEIGHT, AVERAGE = "weight", "average"
FILE = re.compile(r"rank_\d{5,}\.safetensors")


@dataclass(frozen=True)
class Piece:
    """Elements from `start` on of a tensor of `shape` that is flattened; `values` is 1-D, on the host."""

    kind: str
    name: str
    shape: tuple[int, ...]
    start: int
    values: Tensor


@dataclass(frozen=True)
class ModelState:
    """This rank's part, in host memory, which later training does not change.

    steps: how often the optimizer has updated each parameter, of those that it has updated. numbers: what else there is
    to know; equal on all ranks.
    """

    pieces: Sequence[Piece]
    steps: Mapping[str, int]
    numbers: Mapping[str, float]


def write_model_state(state: ModelState, folder: Path, rank: int) -> Path:
    """Writes this rank's file into `folder`, which exists; no other rank is asked for anything."""
    tensors = {f"{piece.kind}/{piece.name}@{piece.start}": piece.values for piece in state.pieces}
    shapes = {piece.name: list(piece.shape) for piece in state.pieces}
    layout = {"shapes": shapes, "steps": dict(state.steps), "numbers": dict(state.numbers)}
    path = folder / f"rank_{rank:05d}.safetensors"
    save_file(tensors, path, metadata={"layout": json.dumps(layout)})
    return path


@dataclass(frozen=True)
class _Stored:
    """Where a piece lies; `values` is a slice of a file, and reads no more than it is asked for."""

    start: int
    length: int
    values: Any


class StateReader:
    """What the ranks' files in `folder` hold, as one whole. Raises `Damaged` where they do not make one.

    shapes: of the tensors, by name. steps, numbers: as in `ModelState`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.steps: dict[str, int] = {}
        self.numbers: dict[str, float] = {}
        self._pieces: dict[tuple[str, str], list[_Stored]] = {}
        for path in _files(folder):
            self._open(path)
        for (kind, name), pieces in self._pieces.items():
            pieces.sort(key=lambda piece: piece.start)
            self._check(kind, name, pieces)

    def has(self, kind: str, name: str) -> bool:
        return (kind, name) in self._pieces

    def read(self, kind: str, name: str, start: int, length: int) -> Tensor:
        """[length], those elements of the flattened tensor, as they were written."""
        if not self.has(kind, name):
            raise Damaged(f"{self.folder.name} has no {kind} of {name}")
        pieces = self._pieces[kind, name]
        first = bisect_right(pieces, start, key=lambda piece: piece.start) - 1
        return torch.cat(list(_parts(pieces[first:], start, start + length)))

    def _open(self, path: Path) -> None:
        try:
            file = safe_open(path, "pt")
            layout = json.loads(file.metadata()["layout"])
            slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, ValueError, TypeError, KeyError) as error:
            raise Damaged(f"{self.folder.name}/{path.name} is broken: {error}") from error
        self.shapes |= {name: tuple(shape) for name, shape in layout["shapes"].items()}
        self.steps |= layout["steps"]
        self.numbers |= layout["numbers"]
        for key, values in slices.items():
            kind, _, place = key.partition("/")
            name, _, start = place.rpartition("@")
            stored = _Stored(int(start), values.get_shape()[0], values)
            self._pieces.setdefault((kind, name), []).append(stored)

    def _check(self, kind: str, name: str, pieces: Sequence[_Stored]) -> None:
        """Every element once."""
        reached = 0
        for piece in pieces:
            if piece.start != reached:
                what = "missing" if piece.start > reached else "there twice"
                raise Damaged(f"{self.folder.name}: the {kind} of {name} is {what} from element {reached} on")
            reached += piece.length
        if reached != prod(self.shapes[name]):
            raise Damaged(f"{self.folder.name}: the {kind} of {name} is missing from element {reached} on")


def _files(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.iterdir() if FILE.fullmatch(path.name))
    if not found:
        raise Damaged(f"{folder.name} has no file of any rank")
    return found


def _parts(pieces: Sequence[_Stored], start: int, end: int) -> Iterator[Tensor]:
    """What of `pieces`, which follow each other, lies between `start` and `end`."""
    for piece in pieces:
        if piece.start >= end:
            return
        yield piece.values[max(start - piece.start, 0) : min(end - piece.start, piece.length)]
