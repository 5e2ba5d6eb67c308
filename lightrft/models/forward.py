"""Per-token log-probabilities of a batch under a model: the only place where the trainer calls a model's forward.

The head runs on the positions that predict a trained token and on no other; over a vocabulary of 50k it is a large
share of the work. How rows are laid out, and why no padding mask is needed, stands in models/packing.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightrft.models.packing import Cost, lay_out

if TYPE_CHECKING:
    from lightrft.batch import Batch

ENTROPY_CHUNK = 256  # rows of log-probabilities per chunk: bounds the entropy's memory to chunk x vocabulary


@dataclass(frozen=True)
class Scores:
    """logprobs and entropy [B, T] float32 (float64 of a float64 model), both 0 where the response mask is 0.

    tokens: positions that the model was run on, padding and prompts included.
    """

    logprobs: Tensor
    entropy: Tensor | None = None
    tokens: int = 0


@contextmanager
def head_on(model: Any, select: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Lets the model's output head see only `select(hidden)` of the hidden states [B, T, H].

    A hook on the head rather than a head of our own: whatever the model does after it (scaling, soft caps) stays.
    """
    head = model.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, inputs: (select(inputs[0]), *inputs[1:]))
    try:
        yield
    finally:
        hook.remove()


def token_logprobs(
    module: Any, model: Any, batch: Batch, *, entropy: str | None = None, sharing: Cost | None = None
) -> Scores:
    """log softmax(logits / temperature)[token] at every trained token, in float32 or better.

    module: what the strategy wants called (an engine, a sharded module); model: the Hugging Face model inside it.
    entropy: "value", "gradient" for one that can be trained on (it keeps a second [tokens, V] array), or None.
    sharing: lets the samples of a group share their prompt's computation where that pays.
    A batch with no trained token still runs the model (sharded models need every rank) and gives zeros with a graph.
    """
    layout = lay_out(batch, sharing)
    trained = batch.response_mask.bool()
    if not len(layout.predicts):
        logits = _precise(module(input_ids=batch.input_ids[:, :1], use_cache=False).logits)
        empty = logits.new_zeros(trained.shape)
        return Scores(empty + 0.0 * logits.sum(), empty if entropy else None)
    with head_on(model, layout.select):
        logits = _precise(module(**layout.inputs, use_cache=False).logits)
    empty = logits.new_zeros(trained.shape)
    if batch.temperature != 1.0:
        logits = logits / batch.temperature
    logp = logits.log_softmax(-1)
    picked = logp.gather(-1, batch.input_ids[trained][:, None])[:, 0]
    found = None
    if entropy is not None:
        found = empty.masked_scatter(trained, entropy_of(logp if entropy == "gradient" else logp.detach()))
    return Scores(empty.masked_scatter(trained, picked), found, layout.inputs["input_ids"].numel())


def _precise(logits: Tensor) -> Tensor:
    """float32 or better: bfloat16 has three digits."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def entropy_of(logp: Tensor) -> Tensor:
    """H = -sum p log p over the last axis of log-probabilities, [N, V] -> [N], in chunks."""
    return torch.cat([_entropy(chunk) for chunk in logp.split(ENTROPY_CHUNK)])


def _entropy(logp: Tensor) -> Tensor:
    """A token of probability 0 adds 0; in the product it is 0 * -inf, which is looked for only when it happened."""
    p = logp.exp()
    entropy = -torch.einsum("nv,nv->n", p, logp)
    return entropy if bool(entropy.isfinite().all()) else -(p * logp.clamp(min=torch.finfo(logp.dtype).min)).sum(-1)
