"""Whether rows may hold several sequences: what a model's configuration says, before it is loaded, and what it computes
of such a row, tried once, when it is."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from lightrft.batch import Batch
from lightrft.errors import Refused, RunFailed, error_text, warn
from lightrft.models.attention import TAKE_SEGMENTS
from lightrft.models.packing import groups_of, padded_rows, rows_of_groups
from lightrft.models.reach import reach
from lightrft.models.sequence_checks import BOUNDS, hidden_of
from lightrft.models.token_model import PreparedModel
from lightrft.models.vision import placeholders
from lightrft.types import Request

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROMPT, RESPONSES = 3, (2, 4)  # tokens of the row that is tried
Model = TypeVar("Model", bound=PreparedModel)


def takes_segments(
    model: PreTrainedModel, name: str = "it", asked_for: str | None = None, kernel: str | None = None
) -> bool:
    """Whether rows may hold several sequences: full attention in every layer, through PyTorch's sdpa kernels, and
    positions that come from position ids (rotary). asked_for: the flag for whose sake a model that cannot is `Refused`.
    kernel: of the attention that the run has; None for the model's own, which may be described only.
    """
    config: Any = model.config.get_text_config()
    fault = _fault_of_structure(model, kernel or config._attn_implementation)
    if fault is not None and asked_for is not None:
        needed = "rotary positions and full attention through sdpa in every layer"
        raise Refused(f"{asked_for} needs a model with {needed}, and {name} {fault}")
    return fault is None


def _fault_of_structure(model: PreTrainedModel, kernel: str) -> str | None:
    """With what would work."""
    sees = reach(model.config.get_text_config())
    if not sees:
        return "has layers other than attention that look back; leave it out"
    if math.isfinite(sees):
        return f"has layers that see {sees} tokens; leave it out"
    if not any(name.endswith("rotary_emb") for name, _ in model.named_modules()):
        return "has positions of another kind; leave it out"
    if kernel not in TAKE_SEGMENTS:
        return f"runs {kernel}; {'use --attn_implementation sdpa' if model._supports_sdpa else 'leave it out'}"
    return None


def with_segments_checked(model: Model, name: str, asked_for: str | None, blank: Request | None = None) -> Model:
    """The model as it is where what it computes of a row with several sequences is what it computes of each alone;
    else one that has a row for each sequence. asked_for: the flag that forbids this. blank: a prompt with an image, of
    a model that sees: it may let the tokens of one see each other.

    All processes together. Where processes share sequences the model is known to hand on what attention is told.
    """
    if model.sequence_ranks is not None or not (model.shares_prompts or model.packs):
        return model
    fault = _fault(model, blank)
    if fault is None:
        return model
    if asked_for is not None:
        raise Refused(f"{asked_for}: {name}: {fault}; leave it out")
    warn(f"{name}: {fault}; each sample computes its own prompt")
    return replace(model, sharing=None)


@torch.no_grad()
def _fault(model: PreparedModel, blank: Request | None) -> str | None:
    batch = _two_samples(model, blank)
    layouts = padded_rows(batch), rows_of_groups(batch, [groups_of(batch)])
    try:
        apart, together = (layout.select(hidden_of(model, layout.told)) for layout in layouts)
    except (RunFailed, torch.OutOfMemoryError):
        raise
    except Exception as error:  # also what a model's own code raises when it is not called as it wants to be
        return error_text(error, most=200)
    off = float((together - apart).double().norm() / apart.double().norm())
    bound = BOUNDS.get(apart.dtype, 1e-3)
    fine = off <= bound or not bool(apart.isfinite().all())  # a model that is not finite is reported by its first step
    return None if fine else f"what it computes of two sequences in one row is off that of each by {off:.2g}"


def _two_samples(model: PreparedModel, blank: Request | None) -> Batch:
    """Of one prompt."""
    config, device = model.handle.model.config, next(model.handle.model.parameters()).device
    known = [i for i in range(config.get_text_config().vocab_size) if i not in placeholders(config)]
    ids = [known[number % len(known)] for number in range(PROMPT + sum(RESPONSES))]
    prompt = ids[:PROMPT] if blank is None else list(blank.prompt_ids)
    responses = ids[PROMPT : PROMPT + RESPONSES[0]], ids[PROMPT + RESPONSES[0] :]
    lengths, width = [len(prompt) + length for length in RESPONSES], len(prompt) + max(RESPONSES)
    rows = torch.zeros(len(RESPONSES), width, dtype=torch.long)
    for row, response in zip(rows, responses, strict=True):
        row[: len(prompt) + len(response)] = torch.tensor([*prompt, *response])
    place, of_rows = torch.arange(width), torch.tensor(lengths)
    trained = (place >= len(prompt)) & (place < of_rows[:, None])
    none = torch.zeros(len(RESPONSES))
    return Batch(
        input_ids=rows, response_mask=trained.long(), rollout_logprobs=torch.zeros(rows.shape), rewards=none.double(),
        group=none.long(), lengths=of_rows, prompt_lengths=torch.full_like(of_rows, len(prompt)), truncated=none.bool(),
        mm_inputs=() if blank is None else [blank.mm_inputs] * len(RESPONSES),
    ).to(device)  # fmt: skip
