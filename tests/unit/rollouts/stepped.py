"""Small models of the architectures that are stepped without the library's modules, and what is sampled from them."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
import transformers as t
from torch import nn

from lightrft.rollouts.engines.base import Sampling
from lightrft.rollouts.engines.local import LocalEngine
from lightrft.rollouts.engines.local.plain import PlainSteps
from lightrft.types import Request

SMALL = dict(
    vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.3,
)  # fmt: skip
SCALED = {"factor": 4.0, "rope_theta": 10000.0, "original_max_position_embeddings": 8}
LLAMA3 = {**SCALED, "rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
KNOWN = {
    "llama": lambda: t.LlamaConfig(**SMALL),
    "llama, biases, llama3's positions": lambda: t.LlamaConfig(
        **SMALL, attention_bias=True, mlp_bias=True, rope_parameters=LLAMA3
    ),
    "llama, yarn": lambda: t.LlamaConfig(**SMALL, rope_parameters={**SCALED, "rope_type": "yarn"}),
    "mistral, wide heads": lambda: t.MistralConfig(**SMALL, sliding_window=None, head_dim=16),
    "qwen2, tied, a head each": lambda: t.Qwen2Config(**{**SMALL, "num_key_value_heads": 4}, tie_word_embeddings=True),
    "qwen3": lambda: t.Qwen3Config(**SMALL, head_dim=16),
}
LENGTHS = (3, 9, 1, 6, 9, 2, 5)


def made(config, dtype=torch.float32):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = t.AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
        for name, value in model.named_parameters():
            if "norm" in name or "bias" in name:  # the library begins with ones and zeros, which hide mistakes
                nn.init.normal_(value, mean=float("norm" in name), std=0.3)
    return model


def sampled(model):
    """Rows end, others take their places, the cache moves to the front."""
    generator = torch.Generator().manual_seed(11)
    prompts = [tuple(torch.randint(3, 61, (n,), generator=generator).tolist()) for n in LENGTHS]
    requests = [Request(ids, tuple(range(100 * i, 100 * i + 4))) for i, ids in enumerate(prompts)]
    found = LocalEngine(lambda: nullcontext(model), None, range(2, 6)).generate(requests, Sampling(30), at_once=2)
    return sum(found, [])


def plain_steps(monkeypatch):
    """Rows of each step without the library's modules, from now on."""
    seen, usual = [], PlainSteps.forward
    monkeypatch.setattr(PlainSteps, "forward", lambda self, tokens: seen.append(len(tokens)) or usual(self, tokens))
    return seen


def same(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        assert (one.response_ids, one.finish_reason) == (other.response_ids, other.finish_reason)
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
