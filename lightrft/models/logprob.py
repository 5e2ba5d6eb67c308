"""The log-probabilities of given tokens, and the entropy, from a row of logits each."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightrft.sampling_masks import TokenSets

LEAST = -1e4  # of log p in a product with p, which is 0 from far above on, in float64 too: with -inf it were NaN
LOG2_E = math.log2(math.e)
ENTROPY_CHUNK = 256  # rows of log-probabilities per chunk: bounds the entropy's memory to chunk x vocabulary


def token_logprobs(
    logits: Tensor, tokens: Tensor, temperature: float, entropy: str | None, sets: TokenSets | None = None
) -> tuple[Tensor, Tensor | None]:
    """log softmax(logits / temperature)[token]: logits [N, V] and tokens [N] to [N], and the entropy [N] if asked for.

    sets: what each token was drawn from, itself among it; the softmax is then over that. The entropy stays that of the
    whole vocabulary. entropy: "value", "gradient" for one that can be trained on (it keeps a second [N, V] array), or
    None.
    """
    if temperature != 1.0:
        logits = logits / temperature
    if sets is None or not len(sets.ids):
        return _over_all(logits, tokens, entropy)
    rows, inside = _within(sets, logits, tokens)
    if len(rows) == len(tokens):  # nobody learns from a softmax over all: no graph of it is kept
        return inside, _entropy_of_logits(logits, entropy)
    picked, entropies = _over_all(logits, tokens, entropy)
    return picked.index_put((rows,), inside), entropies


def _over_all(logits: Tensor, tokens: Tensor, entropy: str | None) -> tuple[Tensor, Tensor | None]:
    logp = logits.log_softmax(-1)
    picked = logp.gather(-1, tokens[:, None])[:, 0]
    if entropy is None:
        return picked, None
    return picked, entropy_of(logp if entropy == "gradient" else logp.detach())


def _entropy_of_logits(logits: Tensor, entropy: str | None) -> Tensor | None:
    if entropy is None:
        return None
    return entropy_of((logits if entropy == "gradient" else logits.detach()).log_softmax(-1))


def _within(sets: TokenSets, logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The tokens that have a set, [M], and logit[token] - log sum over its set of exp logit, [M].

    By the largest logit of a set, which leaves the sum at 1 or more: finite however little mass the set has.
    """
    rows = sets.sizes.nonzero()[:, 0]
    sizes, places = sets.sizes[rows], rows * logits.shape[1]
    flat = logits.flatten()
    own = flat.gather(0, places + tokens[rows])
    others = flat.gather(0, places.repeat_interleave(sizes) + sets.ids)
    largest = torch.segment_reduce(others.detach(), "max", lengths=sizes)
    weights = (others - largest.repeat_interleave(sizes)).exp()
    return rows, own - largest - torch.segment_reduce(weights, "sum", lengths=sizes).log()


def masked_logits(logits: Tensor, sets: TokenSets) -> Tensor:
    """[N, V] with -inf outside of each token's set: a copy of all of it, for few tokens."""
    rows = torch.arange(len(logits), device=logits.device)
    left = (sets.sizes == 0)[:, None].expand(logits.shape).clone()
    left[rows.repeat_interleave(sets.sizes), sets.ids] = True
    return logits.masked_fill(~left, -torch.inf)


def exp(values: Tensor) -> Tensor:
    """Of many values that are 0 or less, in float32 or better. On a CPU as a power of 2: torch's exp is MKL's, which on
    an AMD processor takes four times as long. What the product rounds off the exponent is a part in 10^7 of it, so it
    shows in results that are near 0 alone. Without a graph where no value has one."""
    assert values.dtype in (torch.float32, torch.float64), values.dtype
    if values.device.type != "cpu" or values.requires_grad:
        return values.exp()
    return (values * LOG2_E).exp2_()


def entropy_of(logp: Tensor) -> Tensor:
    """H = -sum p log p over the last axis of log-probabilities, [N, V] -> [N], in chunks."""
    return torch.cat([_entropy(chunk) for chunk in logp.split(ENTROPY_CHUNK)])


def _entropy(logp: Tensor) -> Tensor:
    """A token of probability 0 adds 0; in the product it is 0 * -inf, which is looked for only when it happened."""
    p = exp(logp)
    entropy = -torch.linalg.vecdot(p, logp)
    return entropy if bool(entropy.isfinite().all()) else -(p * logp.clamp(min=LEAST)).sum(-1)
