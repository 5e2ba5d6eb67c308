"""Per-token log-probabilities of a batch under a model: the only place where the trainer calls a model's forward.

Rows are right-padded, so in a causal model no real token ever sees the padding: no attention mask is passed, which
keeps the fast attention kernels and makes the result independent of how much padding there is. The head runs on the
positions that predict a trained token and on no other; over a vocabulary of 50k it is a large share of the work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from lightrft.types import Batch

ENTROPY_CHUNK = 256  # rows of logits per chunk: bounds the extra memory of the entropy to chunk x vocabulary


@dataclass(frozen=True)
class Scores:
    """logprobs and entropy [B, T] float32, both 0 where the response mask is 0; entropy carries no gradient."""

    logprobs: Tensor
    entropy: Tensor | None = None


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


def entropy_of(logits: Tensor) -> Tensor:
    """H = logsumexp(z) - sum softmax(z) z over the last axis, [N, V] -> [N], in chunks and without a graph (S10.2)."""
    chunks = []
    for z in logits.detach().split(ENTROPY_CHUNK):
        lse = torch.logsumexp(z, -1)
        probabilities = (z - lse[:, None]).exp_()
        chunks.append(lse - torch.einsum("nv,nv->n", probabilities, z.nan_to_num(neginf=0.0)))
    return torch.cat(chunks) if chunks else logits.new_zeros(0)


def token_logprobs(module: Any, model: Any, batch: Batch, *, with_entropy: bool = False) -> Scores:
    """log softmax(logits / temperature)[token] at every trained token, in float32 (S10.1).

    module: what the strategy wants called (an engine, a sharded module); model: the Hugging Face model inside it.
    A batch with no trained token still runs the model (sharded models need every rank) and gives zeros with a graph.
    """
    trained = batch.response_mask.bool()
    predicts = trained.roll(-1, dims=1)
    predicts[:, -1] = False
    if not bool(trained.any()):
        predicts[:, 0] = True
    with head_on(model, lambda hidden: hidden[predicts]):
        logits = module(input_ids=batch.input_ids, use_cache=False).logits.float()
    if batch.temperature != 1.0:
        logits = logits / batch.temperature
    empty = logits.new_zeros(batch.input_ids.shape)
    if not bool(trained.any()):
        return Scores(empty + 0.0 * logits.sum(), empty if with_entropy else None)
    picked = -torch.nn.functional.cross_entropy(logits, batch.input_ids[trained], reduction="none")
    entropy = empty.masked_scatter(trained, entropy_of(logits)) if with_entropy else None
    return Scores(empty.masked_scatter(trained, picked), entropy)
