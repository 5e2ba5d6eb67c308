"""Whether rows may hold several sequences: tried once, when a model is loaded."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import torch

from lightrft.errors import Refused, RunFailed, error_text, warn
from lightrft.models.packing import Layout
from lightrft.models.segments import Segments, Tree
from lightrft.models.sequence_checks import BOUNDS, hidden_of
from lightrft.models.token_model import PreparedModel
from lightrft.models.vision import placeholders

PROMPT, RESPONSES = 3, (2, 4)  # tokens of the row that is tried
Model = TypeVar("Model", bound=PreparedModel)


def with_segments_checked(model: Model, name: str, asked_for: str | None) -> Model:
    """The model as it is where what it computes of a row with several sequences is what it computes of each alone;
    else one that has a row for each sequence. asked_for: the flag that forbids this.

    All processes together. Where processes share sequences the model is known to hand on what attention is told.
    """
    if model.sequence_ranks is not None or not (model.shares_prompts or model.packs):
        return model
    fault = _fault(model)
    if fault is None:
        return model
    if asked_for is not None:
        raise Refused(f"{asked_for}: {name}: {fault}; leave it out")
    warn(f"{name}: {fault}; each sample computes its own prompt")
    return replace(model, sharing=None)


@torch.no_grad()
def _fault(model: PreparedModel) -> str | None:
    try:
        apart, together = (hidden_of(model, layout.told) for layout in _layouts(model))
    except (Refused, RunFailed, torch.OutOfMemoryError):
        raise
    except Exception as error:  # what a model's own code raises when it is not called as it wants to be
        return error_text(error, most=200)
    first, second = apart
    wanted = torch.cat([first[: PROMPT + RESPONSES[0]], second[PROMPT : PROMPT + RESPONSES[1]]])
    off = float((together[0] - wanted).double().norm() / wanted.double().norm())
    bound = BOUNDS.get(wanted.dtype, 1e-3)
    fine = off <= bound or not bool(wanted.isfinite().all())  # a model that is not finite is reported by its first step
    return None if fine else f"what it computes of two sequences in one row is off that of each by {off:.2g}"


def _layouts(model: PreparedModel) -> tuple[Layout, Layout]:
    """Two rows with one prompt, and the same as one row."""
    config = model.handle.model.config
    known = [i for i in range(config.get_text_config().vocab_size) if i not in placeholders(config)]
    ids = [known[number % len(known)] for number in range(PROMPT + sum(RESPONSES))]
    prompt, first, second = ids[:PROMPT], ids[PROMPT : PROMPT + RESPONSES[0]], ids[PROMPT + RESPONSES[0] :]
    width = PROMPT + max(RESPONSES)
    rows = [[*prompt, *first] + ids[:1] * (width - PROMPT - len(first)), [*prompt, *second]]
    places = [*range(PROMPT + RESPONSES[0]), *range(PROMPT, PROMPT + RESPONSES[1])]
    device = next(model.handle.model.parameters()).device
    none = torch.zeros(0, dtype=torch.long, device=device)
    together = {"input_ids": torch.tensor([ids], device=device), "position_ids": torch.tensor([places], device=device)}
    segments = Segments(((Tree(PROMPT, RESPONSES),),), len(ids))
    apart = Layout({"input_ids": torch.tensor(rows, device=device)}, none)
    return apart, Layout(together, none, segments=segments)
