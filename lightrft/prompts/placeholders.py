"""Whether each image of a prompt has as many placeholders as features: the model fills one after another.

What a processor makes tells an image's features where it has a grid, [images, 3] patches in time, height and width;
else by pieces, one an image, or one a tile where images are cut. Each piece, and each step in time, has its own places.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import groupby
from typing import TYPE_CHECKING

from lightrft.prompts.media.references import KINDS

if TYPE_CHECKING:
    from torch import Tensor

TILED = 5  # dimensions of [prompts, tiles, channels, height, width]
SIDES = 3  # of a grid: time, height and width


@dataclass(frozen=True)
class Part:
    """owner: what it is a part of, as a message names it. pieces: see `pieces_of`. joins: no text stands before it, so
    that one run of placeholders may be its own and that of the part before.
    """

    owner: str
    pieces: int
    joins: bool = True


@dataclass(frozen=True)
class Mark:
    """Where an image or a video stands in a text. kind: "image" or "video". joins: right behind another mark."""

    kind: str
    joins: bool


def pieces_of(features: Mapping[str, Tensor]) -> int:
    """Patches, tiles or images, whatever the first tensor that the processor made is a list of."""
    first = next(iter(features.values()), None)
    return 0 if first is None else _length(first)


def parts_of(features: Mapping[str, Tensor], marks: Sequence[Mark]) -> list[Part]:
    """Of the media of a prompt, in the order of their marks; [] of videos without a grid: they cannot be told apart."""
    kinds = [kind for kind in KINDS if any(mark.kind == kind for mark in marks)]
    grids = list(_grids(features))
    if len(grids) == len(kinds):
        media = {kind: iter(_of_grid(kind, grid)) for kind, grid in zip(kinds, grids, strict=True)}
        return [part for mark in marks for part in _joined(next(media[mark.kind], []), mark)]
    return _of_pieces(pieces_of(features), marks) if kinds == ["image"] else []


def misfit(runs: Sequence[int], parts: Sequence[Part], rate: Fraction) -> str | None:
    """The first image or video that has other placeholders than its own: its name and both numbers.

    runs: lengths of the runs of placeholders, in their order; a part has one, or shares it. rate: placeholders for
    each piece.
    """
    place, wanted = 0, [rate * part.pieces for part in parts]
    for run in runs:
        first, rest = place, Fraction(run)
        while place < len(parts) and wanted[place] <= rest and (place == first or parts[place].joins):
            rest -= wanted[place]
            place += 1
        if rest:
            is_short = place == first and place < len(parts)
            return (
                _told(parts, wanted, place, rest)
                if is_short
                else _told(parts, wanted, place - 1, wanted[place - 1] + rest)
            )
    return _told(parts, wanted, place, Fraction(0)) if place < len(parts) else None


def runs_of(ids: Sequence[int], places: frozenset[int]) -> list[int]:
    """Lengths of the runs of ids that are among `places`."""
    return [len(list(run)) for is_place, run in groupby(ids, places.__contains__) if is_place]


def _told(parts: Sequence[Part], wanted: Sequence[Fraction], at: int, found: Fraction) -> str:
    owner = parts[at].owner
    whole = sum(need for part, need in zip(parts, wanted, strict=True) if part.owner == owner)
    return f"{owner} has {whole - wanted[at] + found} placeholders for {whole} features"


def _joined(parts: Sequence[Part], mark: Mark) -> list[Part]:
    return [replace(part, joins=mark.joins) for part in parts[:1]] + list(parts[1:])


def _of_grid(kind: str, grid: Tensor) -> Iterator[list[Part]]:
    sizes = grid.tolist()
    for number, (time, height, width) in enumerate(sizes, 1):
        yield [Part(f"{kind} {number} of {len(sizes)}", height * width)] * time


def _of_pieces(pieces: int, marks: Sequence[Mark]) -> list[Part]:
    images = len(marks)
    if pieces <= images:
        return [
            Part(f"image {number} of {images}", int(number <= pieces), mark.joins)
            for number, mark in enumerate(marks, 1)
        ]
    owner = "its image" if images == 1 else f"its {images} images"
    return [Part(f"tile {number} of {pieces} of {owner}", 1) for number in range(1, pieces + 1)]


def _grids(features: Mapping[str, Tensor]) -> Iterator[Tensor]:
    """What looks like one: rows of three integers whose products count the entries of another tensor."""
    lengths = {_length(value) for value in features.values()}
    for value in features.values():
        is_grid = value.dim() == 2 and value.shape[1] == SIDES and not value.is_floating_point()
        if is_grid and int(value.prod(1).sum()) in lengths:
            yield value


def _length(tensor: Tensor) -> int:
    return tensor.shape[0] if tensor.dim() < TILED else tensor.shape[:2].numel()
