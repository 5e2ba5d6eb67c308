"""Which models are stepped without the library's modules."""

from __future__ import annotations

import pytest
import torch
import transformers as t
from stepped import KNOWN, SCALED, SMALL, made, plain_steps, sampled
from torch import nn
from transformers.modeling_outputs import CausalLMOutputWithPast

from lightrft.rollouts.engines.local import packed as packed_file

OTHER = {
    "windows": lambda: t.MistralConfig(**SMALL, sliding_window=4),
    "positions that change with the length": lambda: t.LlamaConfig(
        **SMALL, rope_parameters={**SCALED, "rope_type": "dynamic"}
    ),
    "another architecture": lambda: t.Gemma2Config(**SMALL),
    "experts": lambda: t.Qwen3MoeConfig(**SMALL, num_experts=2, num_experts_per_tok=1, moe_intermediate_size=48),
}


@pytest.fixture
def steps(monkeypatch):
    return plain_steps(monkeypatch)


@pytest.mark.parametrize("kind", OTHER)
def test_other_models_are_stepped_by_the_library(steps, kind):
    sampled(made(OTHER[kind]()))
    assert not steps


class Doubled(nn.Linear):
    def forward(self, input):
        return 2 * super().forward(input)


class Around(nn.Module):
    """It has no part that what is in it is known to have."""

    def __init__(self, usual):
        super().__init__()
        self.usual = usual

    def forward(self, *given, **named):
        return self.usual(*given, **named)


class Doubles(Around):
    def forward(self, *given):
        return 2 * self.usual(*given)


def turned_mlp(model):
    mlp = model.model.layers[0].mlp
    mlp.forward = lambda x: -type(mlp).forward(mlp, x)


CHANGES = {
    "a class": lambda model: setattr(model.model.layers[1].mlp.down_proj, "__class__", Doubled),
    "a forward": turned_mlp,
    "a layer that is not linear": lambda model: put(model, "model.layers.0.self_attn.v_proj"),
    "the last norm": lambda model: put(model, "model.norm"),
    "the norm of queries": lambda model: put(model, "model.layers.1.self_attn.q_norm"),
    "the norm of keys": lambda model: put(model, "model.layers.0.self_attn.k_norm"),
    "what goes into a layer": lambda model: model.model.layers[1].mlp.up_proj.register_forward_pre_hook(
        lambda _, inputs: (2 * inputs[0],)
    ),
    "what comes out of a layer": lambda model: model.model.layers[0].mlp.register_forward_hook(
        lambda _, inputs, output: 2 * output
    ),
}


def put(model, path):
    model.set_submodule(path, Doubles(model.get_submodule(path)))


@pytest.mark.parametrize("change", CHANGES)
def test_a_model_whose_parts_are_others_is_stepped_by_the_library(steps, change):
    usual, model = made(KNOWN["qwen3"]()), made(KNOWN["qwen3"]())
    CHANGES[change](model)
    assert sampled(model) != sampled(usual)
    seen = len(steps)
    sampled(usual)
    sampled(model)
    assert seen and len(steps) == 2 * seen, "the usual one's alone"


class OfItsOwn(t.PreTrainedModel, t.GenerationMixin):
    """As a file beside the weights may have it: the type is Llama's, the parts are called otherwise."""

    config_class = t.LlamaConfig
    _supports_sdpa = True

    def __init__(self, config):
        super().__init__(config)
        self.transformer, self.output = t.LlamaModel(config), nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()

    def get_output_embeddings(self):
        return self.output

    def forward(self, input_ids, attention_mask=None, position_ids=None, past_key_values=None, use_cache=None):
        found = self.transformer(input_ids, attention_mask, position_ids, past_key_values)
        return CausalLMOutputWithPast(logits=self.output(found[0]))


def test_models_of_their_own_are_stepped_by_the_library(steps):
    inside = made(KNOWN["llama"]())
    inside.model = Around(inside.model)
    inside.get_output_embeddings = lambda: inside.lm_head
    for model in (OfItsOwn(KNOWN["llama"]()).eval(), inside):
        assert sampled(model)
    assert not steps


def test_hooks_of_the_library_that_nobody_asks_are_none(steps):
    model = made(KNOWN["llama"]())
    model(torch.tensor([[3, 4]]), output_hidden_states=True)
    assert model.model.layers[0]._forward_hooks
    sampled(model)
    assert steps


def test_large_layers_that_are_not_laid_out_are_not_copied_instead(monkeypatch, steps):
    """As on a processor that oneDNN has no kernels for. Of those of one input, gate and up are the largest here."""
    model = made(KNOWN["llama"]())
    monkeypatch.setattr(packed_file, "_can", lambda _: False)
    for least, many in ((2 * 48 * 32, False), (2 * 48 * 32 + 1, True)):
        monkeypatch.setattr(packed_file, "LEAST", least)
        sampled(model)
        assert bool(steps) == many
