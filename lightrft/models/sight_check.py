"""Whether a model takes what its processor makes of an image: tried once, when the model is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from lightrft.errors import Refused, RunFailed, error_text
from lightrft.models.media import Rows, joined
from lightrft.models.token_model import PreparedModel

if TYPE_CHECKING:
    from lightrft.types import Request


def check_sight(model: PreparedModel, blank: Request, name: str) -> None:
    """Refuses a processor that belongs to another model. blank: a prompt with an image. All processes together."""
    device, length, media = next(model.handle.model.parameters()).device, len(blank.prompt_ids), [blank.mm_inputs]
    ids = torch.tensor([blank.prompt_ids], device=device)
    inputs = joined(media, device) | Rows(media, [0], [length], length).inputs(device)
    try:
        with torch.no_grad():
            model.handle.module(input_ids=ids, **inputs, use_cache=False)
    except (Refused, RunFailed, torch.OutOfMemoryError):
        raise
    except Exception as error:  # what a model's own code raises when it is not called as it wants to be
        raise Refused(
            f"{name} does not take what its processor makes of an image ({error_text(error, most=200)}); give the "
            "processor of this model"
        ) from error
