"""Steps without the library's modules, against the library's own."""

from __future__ import annotations

import copy
import re
from contextlib import nullcontext

import pytest
import torch
import transformers as t
from torch import nn

from lightrft.args.groups.model import ModelArgs
from lightrft.models.adapters import adapt
from lightrft.models.recompute import recompute_layers
from lightrft.rollouts.engines.base import Sampling
from lightrft.rollouts.engines.local import LocalEngine, engine, past
from lightrft.rollouts.engines.local.packed import packed
from lightrft.rollouts.engines.local.plain import PlainSteps, plain_of
from lightrft.types import Request

SMALL = dict(
    vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.2,
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
OTHER = {
    "windows": lambda: t.MistralConfig(**SMALL, sliding_window=4),
    "positions that change with the length": lambda: t.LlamaConfig(
        **SMALL, rope_parameters={**SCALED, "rope_type": "dynamic"}
    ),
    "another architecture": lambda: t.Gemma2Config(**SMALL),
    "experts": lambda: t.Qwen3MoeConfig(**SMALL, num_experts=2, num_experts_per_tok=1, moe_intermediate_size=48),
}
LENGTHS = (3, 9, 1, 6, 9, 2, 5)


def made(config, dtype=torch.float32):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = t.AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
        for name, value in model.named_parameters():
            if "norm" in name or "bias" in name:  # the library begins with ones and zeros, which hide mistakes
                nn.init.normal_(value, mean=float("norm" in name), std=0.2)
    return model


def sampled(model):
    """Rows end, others take their places, the cache moves to the front."""
    generator = torch.Generator().manual_seed(11)
    prompts = [tuple(torch.randint(3, 61, (n,), generator=generator).tolist()) for n in LENGTHS]
    requests = [Request(ids, tuple(range(100 * i, 100 * i + 4))) for i, ids in enumerate(prompts)]
    found = LocalEngine(lambda: nullcontext(model), None, range(2, 6)).generate(requests, Sampling(30), at_once=2)
    return sum(found, [])


@pytest.fixture
def steps(monkeypatch):
    """Rows of each step without the library's modules."""
    seen, usual = [], PlainSteps.forward
    monkeypatch.setattr(PlainSteps, "forward", lambda self, tokens: seen.append(len(tokens)) or usual(self, tokens))
    return seen


def by_the_library(model, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(engine, "plain_of", lambda *_: None)
        return sampled(model)


def same(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        assert (one.response_ids, one.finish_reason) == (other.response_ids, other.finish_reason)
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


@pytest.mark.parametrize("kind", KNOWN)
def test_tokens_and_log_probabilities_are_the_library_s(monkeypatch, steps, kind):
    model = made(KNOWN[kind]())
    wanted = by_the_library(model, monkeypatch)
    assert not steps
    same(sampled(model), wanted)
    assert len(steps) > 30 and len(set(steps)) > 2
    assert len({one.response_ids for one in wanted}) > 20


def test_adapters_and_layers_that_are_computed_again_are_known(monkeypatch, steps):
    model = made(KNOWN["qwen2, tied, a head each"]())
    recompute_layers(model, "the policy")
    adapt(model, ModelArgs(pretrain="none", lora_rank=2, lora_alpha=6.0), seed=0)
    for name, value in model.named_parameters():
        if ".lora_B." in name:
            nn.init.normal_(value, std=0.1, generator=torch.Generator().manual_seed(2))
    same(sampled(model), by_the_library(model, monkeypatch))
    assert steps


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_it_rounds_where_the_library_rounds(monkeypatch, kind):
    """In bfloat16 the mean of what both are off from float32 is the same."""
    model = made(KNOWN[kind](), torch.bfloat16)
    ids, exact = torch.arange(3, 27).view(4, 6), copy.deepcopy(model).float()
    with torch.inference_mode(), packed(model) as products:
        off = []
        for plain in (None, plain_of(model, products)):
            rows = past.Past(past.Prompts(model, ids[:, :-1].tolist(), room=2), range(4), plain)
            logits = rows.forward(ids[:, -1])
            off.append(float((logits.float() - exact(ids).logits[:, -1]).abs().mean()))
    assert rows.quick is not None and off[1] == pytest.approx(off[0], rel=0.15)


@pytest.mark.parametrize("kind", OTHER)
def test_other_models_are_stepped_by_the_library(steps, kind):
    sampled(made(OTHER[kind]()))
    assert not steps


def test_a_model_whose_parts_are_others_is_stepped_by_the_library(steps):
    class Doubled(nn.Linear):
        def forward(self, input):
            return 2 * super().forward(input)

    model = made(KNOWN["llama"]())
    model.model.layers[1].mlp.down_proj.__class__ = Doubled
    changed = made(KNOWN["llama"]())
    mlp = changed.model.layers[0].mlp
    mlp.forward = lambda x: -type(mlp).forward(mlp, x)
    for each in (model, changed):
        sampled(each)
    assert not steps


def test_a_model_that_gives_other_logits_is_told_of_once_and_stepped_by_the_library(monkeypatch, steps, capsys):
    model = made(KNOWN["llama"]())
    model.model.layers[0].mlp.register_forward_hook(lambda _, inputs, output: 2 * output)
    wanted = by_the_library(model, monkeypatch)
    for _ in range(2):
        same(sampled(model), wanted)
    assert len(steps) == 1
    said = (
        "warning: the local engine is slower: a step of LlamaForCausalLM could not be computed without the library's "
    )
    assert re.fullmatch(re.escape(said) + r"modules \(its logits were off by \d.*\)\n", capsys.readouterr().err)
