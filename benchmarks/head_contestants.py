"""What head.py compares: ways from hidden states and a head to log-probabilities and entropies."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lightrft.models.foreseen import Foreseen, Slopes
from lightrft.models.fused_head import fused_logprobs
from lightrft.models.logit_blocks import Blocks
from lightrft.models.logprob import token_logprobs
from lightrft.models.products import linear

TEMPERATURE, CHUNK, ROW = 0.8, 4096, 64  # ROW: tokens of a response
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Problem:
    """hidden [N, H], weight [V, H], tokens [N], and the gradient of the loss to each log-probability [N]."""

    hidden: Tensor
    weight: Tensor
    tokens: Tensor
    slope: Tensor

    @classmethod
    def draw(cls, rows: int, words: int, width: int, dtype: str, device: str, trains: bool = True) -> Problem:
        make = torch.Generator(device).manual_seed(0)
        hidden, weight = (torch.randn(n, width, generator=make, device=device) for n in (rows, words))
        tokens = torch.randint(words, (rows,), generator=make, device=device)
        slope = torch.randn(rows, generator=make, device=device) / rows
        kind = DTYPES[dtype]
        weight = (0.05 * weight).to(kind).requires_grad_(trains)
        return cls(hidden.to(kind).requires_grad_(), weight, tokens, slope)


Scores = tuple[Tensor, Tensor | None]


def naive(p: Problem, entropy: str | None) -> Scores:
    logits = linear(p.hidden, p.weight).float()
    return token_logprobs(logits, p.tokens, TEMPERATURE, entropy)


def unforeseen(p: Problem, entropy: str | None) -> Scores:
    return _fused(p, entropy, None)


def fused(p: Problem, entropy: str | None) -> Scores:
    return _fused(p, entropy, Foreseen(_slopes(p, entropy)))


def by_row(p: Problem, entropy: str | None) -> Scores:
    lengths = torch.full((math.ceil(len(p.tokens) / ROW),), ROW)
    lengths[-1] -= int(lengths.sum()) - len(p.tokens)
    return _fused(p, entropy, Foreseen(_slopes(p, entropy), lengths))


def _slopes(p: Problem, entropy: str | None) -> Slopes:
    slopes = p.slope[:, None]
    if entropy == "gradient":
        slopes = torch.stack([p.slope, torch.full_like(p.slope, -0.01 / len(p.slope))], -1)
    return lambda _: slopes


def _fused(p: Problem, entropy: str | None, foreseen: Foreseen | None) -> Scores:
    blocks = Blocks(p.hidden, p.weight, None, (), TEMPERATURE, CHUNK)
    found = fused_logprobs(blocks, p.tokens, entropy, foreseen)
    return found[:, 0], found[:, 1] if entropy else None


def trl(p: Problem, entropy: str | None) -> Scores:
    """What `model(..., fused_lm_head=True)` calls, for the outputs that GRPOTrainer wants."""
    from trl.kernels import ChunkedLogProbFunction
    from trl.trainer import utils

    settings = TEMPERATURE, utils._CHUNKED_LOGPROB_CHUNK_SIZE, None, 1.0  # no cap of the logits, no scale
    outputs = ("log_probs", "entropy") if entropy else ("log_probs",)
    return ChunkedLogProbFunction.apply(p.hidden, p.weight, None, p.tokens, *settings, outputs)[:2]


def trl_logits(p: Problem, entropy: str | None) -> Scores:
    from trl.trainer.utils import selective_log_softmax, selective_log_softmax_and_entropy

    logits = torch.nn.functional.linear(p.hidden, p.weight).float()  # accelerate makes them so of a model in bf16
    row = math.gcd(len(p.tokens), 256)  # tokens: it takes row by row
    logits, tokens = logits.unflatten(0, (-1, row)), p.tokens.view(-1, row)
    if entropy is None:
        return selective_log_softmax(logits, tokens, TEMPERATURE).flatten(), None
    found = selective_log_softmax_and_entropy(logits, tokens, entropy == "gradient", TEMPERATURE)
    return found[0].flatten(), found[1].flatten()


def liger(p: Problem, entropy: str | None) -> Scores:
    from liger_kernel.chunked_loss.fused_linear_ppo import _ChunkedSelectiveLogProbFunction as Chunked

    return Chunked.apply(p.hidden, p.weight, p.tokens, None, TEMPERATURE, 4096), None


class Way(NamedTuple):
    """scores: of tokens, and their entropies. package: what has to be installed for a peer."""

    scores: Callable[[Problem, str | None], Scores]
    package: str = ""
    entropy: bool = True


SIDES = {
    "naive": Way(naive),
    "fused": Way(fused),
    "by_row": Way(by_row),
    "unforeseen": Way(unforeseen),
    "trl": Way(trl, "trl"),
    "trl_logits": Way(trl_logits, "trl"),
    "liger": Way(liger, "liger-kernel", entropy=False),
}
