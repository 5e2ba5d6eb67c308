"""How attention is computed while tokens are decoded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from lightrft.rollouts.engines.threads import all_threads

LARGE = 1 << 21  # elements of keys, from which on a product with them is worth waking threads for


@contextmanager
def without_cudnn() -> Iterator[None]:
    """cuDNN plans anew for each number of keys, and decoding has one more at every token: seconds for each hundred."""
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


@contextmanager
def one_token_attention() -> Iterator[None]:
    """A single query per row is a small matrix product with the keys, and one with the values.

    torch's kernel is made for many queries: on a CPU it takes four times as long in bfloat16. Heads that share keys are
    one product with them, so these are read once; in bfloat16 they would be laid out anew as the right factor.
    """
    usual = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def attention(
        module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **named: Any
    ) -> tuple[Tensor, Tensor | None]:
        with _threads_for(key):
            if _gains(query, key, attention_mask) and not any(
                named.get(name) is not None for name in ("position_bias", "softcap")
            ):
                return one_token(query, key, value, attention_mask, named.get("scaling")), None
            return usual(module, query, key, value, attention_mask, **named)

    ALL_ATTENTION_FUNCTIONS["sdpa"] = attention
    try:
        yield
    finally:
        ALL_ATTENTION_FUNCTIONS["sdpa"] = usual


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
    """`one_token`, of all threads where there are many keys."""
    with _threads_for(key):
        return one_token(query, key, value, mask, scaling)


def _threads_for(key: Tensor) -> AbstractContextManager[None]:
    return all_threads() if key.numel() >= LARGE else nullcontext()


def _gains(query: Tensor, key: Tensor, mask: Tensor | None) -> bool:
    """On a GPU beside a mask only: without one its own kernels are better, and with one they copy shared keys."""
    if query.shape[2] > 1:
        return False
    shared = key.shape[1] < query.shape[1]
    return shared or query.dtype != torch.float32 if query.device.type == "cpu" else mask is not None


def one_token(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None) -> Tensor:
    """query [B, H, 1, D], key and value [B, G, K, D or E], H a multiple of G, to [B, 1, H, E].

    mask: broadcasts to [B, H, 1, K]; booleans say which keys are seen, numbers are added to the scores.
    """
    B, H, _, D = query.shape
    G = key.shape[1]
    scores = _scores(query.reshape(B, G, H // G, D), key, D**-0.5 if scaling is None else scaling)
    if mask is not None:
        grouped = mask if mask.shape[1] == 1 else mask.reshape(mask.shape[0], G, H // G, -1)
        scores = scores.masked_fill(~grouped, -torch.inf) if mask.dtype == torch.bool else scores + grouped
    weights = scores.softmax(-1).to(value.dtype)
    return torch.bmm(weights.flatten(0, 1), value.flatten(0, 1)).reshape(B, 1, H, -1)


def _scores(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """query [B, G, R, D], key [B, G, K, D] to their products times `scale`, [B, G, R, K] float32."""
    if query.dtype == torch.float32 and query.device.type == "cpu":
        left = query.flatten(0, 1)
        whole = torch.baddbmm(left[:1, :1, :1], left, key.flatten(0, 1).mT, beta=0, alpha=scale)
        return whole.unflatten(0, query.shape[:2])
    return torch.matmul(key, query.mT).mT.float() * scale
