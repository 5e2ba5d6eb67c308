"""The log-probabilities of given tokens, and the entropy, from a row of logits each."""

from __future__ import annotations

import torch
from torch import Tensor

ENTROPY_CHUNK = 256  # rows of log-probabilities per chunk: bounds the entropy's memory to chunk x vocabulary


def token_logprobs(
    logits: Tensor, tokens: Tensor, temperature: float, entropy: str | None
) -> tuple[Tensor, Tensor | None]:
    """log softmax(logits / temperature)[token]: logits [N, V] and tokens [N] to [N], and the entropy [N] if asked for.

    entropy: "value", "gradient" for one that can be trained on (it keeps a second [N, V] array), or None.
    """
    if temperature != 1.0:
        logits = logits / temperature
    logp = logits.log_softmax(-1)
    picked = logp.gather(-1, tokens[:, None])[:, 0]
    if entropy is None:
        return picked, None
    return picked, entropy_of(logp if entropy == "gradient" else logp.detach())


def entropy_of(logp: Tensor) -> Tensor:
    """H = -sum p log p over the last axis of log-probabilities, [N, V] -> [N], in chunks."""
    return torch.cat([_entropy(chunk) for chunk in logp.split(ENTROPY_CHUNK)])


def _entropy(logp: Tensor) -> Tensor:
    """A token of probability 0 adds 0; in the product it is 0 * -inf, which is looked for only when it happened."""
    p = logp.exp()
    entropy = -torch.einsum("nv,nv->n", p, logp)
    return entropy if bool(entropy.isfinite().all()) else -(p * logp.clamp(min=torch.finfo(logp.dtype).min)).sum(-1)
