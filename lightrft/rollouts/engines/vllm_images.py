"""Images for vLLM: it gets them as they are, and its own processor writes the placeholders into the prompt.

So the ids that it used and what its processor makes of an image are compared with the trainer's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lightrft.errors import RunFailed
from lightrft.prompts.bad_rows import BadRow

if TYPE_CHECKING:
    from lightrft.prompts.vision import Vision
    from lightrft.types import Request

WIDTH, HEIGHT = 147, 94  # of the image that both processors read: no whole number of patches, and each pixel another
NEAR = 1e-4  # of a pixel, whose values lie around -2 to 2


def prompt_of(request: Request) -> dict[str, Any]:
    if request.media is None:
        return {"prompt_token_ids": list(request.prompt_ids)}
    return {
        "prompt_token_ids": list(request.bare_ids),
        "multi_modal_data": {"image": list(request.media.images)},
    }


def check_ids(request: Request, used: Sequence[int]) -> None:
    """used: the prompt as vLLM read it."""
    ours = request.prompt_ids
    if ours != tuple(used):
        first = next((i for i, (a, b) in enumerate(zip(ours, used, strict=False)) if a != b), min(len(ours), len(used)))
        read = f"{len(used)} tokens where the trainer has {len(ours)}, other ones from token {first} on"
        raise RunFailed(f"{request.where or 'a prompt'}: vLLM read {read}; --engine_type local has no second processor")


def check_processor(llm: Any, vision: Vision) -> None:
    from vllm.multimodal import MULTIMODAL_REGISTRY  # pyright: ignore

    theirs = MULTIMODAL_REGISTRY.create_processor(llm.llm_engine.model_config).info.get_hf_processor()
    if fault := processor_fault(vision, theirs):
        raise RunFailed(f"vLLM's processor makes something else of an image than the trainer's: {fault}")


def processor_fault(vision: Vision, theirs: Any) -> str | None:
    """What the other processor makes otherwise of an image, or of the text around it."""
    from PIL import Image

    noise = np.random.RandomState(0).randint(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    try:
        made, other = (vision.read_by(each, Image.fromarray(noise)) for each in (vision.processor, theirs))
    except BadRow as fault:
        return str(fault)
    return next((f"{name} {told}" for name in made if (told := _difference(made, other, name))), None)


def _difference(made: Mapping[str, Any], other: Mapping[str, Any], name: str) -> str | None:
    if name not in other:
        return "is missing"
    ours, theirs = (torch.as_tensor(each[name]).float() for each in (made, other))
    if ours.shape != theirs.shape:
        return f"is {list(theirs.shape)} and not {list(ours.shape)}"
    off = float((ours - theirs).abs().max())
    return f"is up to {off:.2g} away" if off > NEAR else None
