"""Images for an engine: it gets them as they are, and its own processor writes the placeholders into the prompt.

So the ids that it used, and what is made of an image there, are compared with the trainer's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lightrft.errors import RunFailed

if TYPE_CHECKING:
    from lightrft.types import Request

WIDTH, HEIGHT = 147, 94  # of the image that is compared: no whole number of patches, and each pixel another
NEAR = 1e-4  # of a pixel, whose values lie around -2 to 2


def noise() -> Any:
    from PIL import Image

    return Image.fromarray(np.random.RandomState(0).randint(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))


def check_ids(engine: str, request: Request, used: Sequence[int]) -> None:
    """used: the prompt as the engine read it."""
    ours = request.prompt_ids
    if ours != tuple(used):
        first = next((i for i, (a, b) in enumerate(zip(ours, used, strict=False)) if a != b), min(len(ours), len(used)))
        read = f"{len(used)} tokens where the trainer has {len(ours)}, other ones from token {first} on"
        where = request.where or "a prompt"
        raise RunFailed(f"{where}: {engine} read {read}; --engine_type local has no second processor")


def check_alike(engine: str, fault: str | None) -> None:
    """`RunFailed` where there is a fault: what is made otherwise."""
    if fault:
        raise RunFailed(f"{engine}'s processor makes something else of an image than the trainer's: {fault}")


def difference(made: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """made: by the trainer. The first of its names that is another thing there."""
    return next((f"{name} {told}" for name in made if (told := _difference(made, other, name))), None)


def _difference(made: Mapping[str, Any], other: Mapping[str, Any], name: str) -> str | None:
    if name not in other:
        return "is missing"
    ours, theirs = (torch.as_tensor(each[name]).float() for each in (made, other))
    if ours.shape != theirs.shape:
        return f"is {list(theirs.shape)} and not {list(ours.shape)}"
    off = float((ours - theirs).abs().max())
    return f"is up to {off:.2g} away" if off > NEAR else None
