"""Linear layers whose weights are laid out for a generation, against torch's own products of the same weights."""

from __future__ import annotations

import copy
import weakref
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from lightrft.args.groups.model import ModelArgs
from lightrft.models.adapters import adapt, adapters_of
from lightrft.rollouts.engines.base import Sampling
from lightrft.rollouts.engines.local import LocalEngine
from lightrft.rollouts.engines.local import packed as module
from lightrft.rollouts.engines.local.packed import LEAST, packed
from lightrft.rollouts.engines.local.past import Prompts
from lightrft.types import Request

ATOL = {torch.float32: 1e-5, torch.bfloat16: 0.01}  # of outputs of size one


class Layers(nn.Module):
    """Large with a bias, large without one, small."""

    def __init__(self, dtype):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.small = nn.Linear(256, 512), nn.Linear(512, 256, bias=False), nn.Linear(256, 8)
        self.to(dtype)

    def forward(self, x):
        return self.small(self.last(self.first(x)))


def products(call):
    """How many of them were taken of laid out weights."""
    with torch.profiler.profile() as seen:
        call()
    return sum(event.count for event in seen.key_averages() if event.key == "mkldnn::_linear_pointwise")


@pytest.mark.parametrize("dtype", ATOL)
@pytest.mark.parametrize("shape", [(3, 256), (1, 256), (2, 5, 256), (70, 1, 256)])
def test_large_layers_give_what_they_gave(dtype, shape):
    model, x = Layers(dtype), torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    aside = torch.stack([x, x], -2)[..., 1, :]  # the same numbers, not side by side in memory
    with torch.no_grad():
        wanted = model(x)
        with packed(model):
            found, again = model(x), model(aside)
            counted = products(lambda: model(x))
    assert found.dtype == dtype and torch.equal(found, again)
    torch.testing.assert_close(found, wanted, rtol=0, atol=ATOL[dtype])
    assert counted == 2 and model.small.weight.numel() < LEAST


@pytest.mark.parametrize("fails", [False, True])
def test_layers_are_as_before_afterwards(fails):
    model = Layers(torch.float32)
    with pytest.raises(ValueError) if fails else nullcontext(), packed(model):
        if fails:
            raise ValueError
    assert products(lambda: model(torch.ones(1, 256))) == 0
    assert model(torch.ones(1, 256)).requires_grad


def test_layers_are_as_before_where_one_of_them_cannot_be_laid_out(monkeypatch):
    model, usual = Layers(torch.float32), module.merged_weight

    def weight(layer):
        if layer is model.last:
            raise MemoryError
        return usual(layer)

    monkeypatch.setattr(module, "merged_weight", weight)
    with pytest.raises(MemoryError), packed(model):
        pass
    assert not any("forward" in vars(layer) for layer in model.modules())


def test_a_layer_that_computes_in_its_own_way_is_left_alone():
    class Twice(nn.Linear):
        def forward(self, input):
            return 2 * super().forward(input)

    inherits = type("Inherits", (nn.Linear,), {})  # as FSDP2 makes of the layers that it shards
    for kind, counted in ((Twice, 0), (inherits, 1)):
        model = nn.Sequential(kind(256, 512))
        with torch.no_grad(), packed(model):
            assert products(lambda model=model: model(torch.ones(1, 256))) == counted


def test_every_generation_is_of_the_weights_as_they_are(causal_model):
    """The layout is of one generation: weights that change in place, between two, are those that are sampled."""

    model = copy.deepcopy(causal_model("llama"))
    model.lm_head = nn.Linear(model.config.hidden_size, 60 * 1024, bias=False)
    engine, asked = LocalEngine(lambda: nullcontext(model), None, ()), [Request((3, 4, 5), (1, 2))]
    first = engine.generate(asked, Sampling(1, temperature=0.0), at_once=1)
    best = first[0][0].response_ids[0]
    with torch.no_grad():
        model.lm_head.weight[best] *= -1
    second = engine.generate(asked, Sampling(1, temperature=0.0), at_once=1)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[3, 4, 5]])).logits[0, -1]
    assert int(logits.argmax()) == second[0][0].response_ids[0] != best


class Attention(nn.Module):
    """Three layers that read one input, as those of a model are named; the first has another bias than the others."""

    def __init__(self, dtype, biases=(True, True, True)):
        super().__init__()
        torch.manual_seed(0)
        sizes = {"q_proj": 512, "k_proj": 256, "v_proj": 320}
        for (name, size), bias in zip(sizes.items(), biases, strict=True):
            setattr(self, name, nn.Linear(256, size, bias=bias))
        self.to(dtype)

    def forward(self, q, k, v):
        return self.q_proj(q), self.k_proj(k), self.v_proj(v)


def inputs(dtype, count=3):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(5, 1, 256, generator=generator).to(dtype) for _ in range(count)]


@pytest.mark.parametrize("dtype", ATOL)
@pytest.mark.parametrize(("biases", "together"), [((True,) * 3, 1), ((False,) * 3, 1), ((True, False, False), 3)])
def test_layers_that_read_one_input_are_one_product(dtype, biases, together):
    model, (x, *_) = Attention(dtype, biases), inputs(dtype)
    with torch.no_grad():
        wanted = model(x, x, x)
        with packed(model):
            found = model(x, x, x)
            counted = products(lambda: model(x, x, x))
    assert counted == together
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=ATOL[dtype])


@pytest.mark.parametrize("order", [(0, 1, 1), (0, 1, 2), (1, 0, 1)])
def test_what_one_layer_was_given_is_not_what_another_gets(order):
    """Keys and values of something else, as in cross attention; and one layer alone."""
    model, x = Attention(torch.float32), inputs(torch.float32)
    with torch.no_grad():
        wanted = model(*(x[i] for i in order))
        with packed(model):
            for _ in range(2):
                for found, other in zip(model(*(x[i] for i in order)), wanted, strict=True):
                    torch.testing.assert_close(found, other, rtol=0, atol=1e-5)
            assert torch.equal(model.q_proj(x[2]), model.q_proj(x[2]))  # twice, and nobody takes the others' share


def test_nothing_is_held_after_the_last_of_them():
    model, (x, *_) = Attention(torch.float32), inputs(torch.float32)
    with torch.no_grad(), packed(model):
        outputs = model(x, x, x)
        held = [weakref.ref(x), *map(weakref.ref, outputs)]
        del x, _, outputs
        assert [ref() for ref in held] == [None] * 4


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma3"])
def test_a_whole_model_samples_the_same_with_four_products_a_layer(causal_model, monkeypatch, kind):
    model, asked = causal_model(kind), [Request((3, 4, 5), (1, 2)), Request((9, 3), (3,))]
    engine = LocalEngine(lambda: nullcontext(model), None, ())
    wanted = engine.generate(asked, Sampling(12), at_once=2)
    monkeypatch.setattr(module, "LEAST", 1)
    found = engine.generate(asked, Sampling(12), at_once=2)
    for one, other in zip(sum(found, []), sum(wanted, []), strict=True):
        assert one.response_ids == other.response_ids
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
    layers = model.config.num_hidden_layers
    counted = products(lambda: engine.generate(asked, Sampling(12), at_once=2))
    assert counted == 12 * (4 * layers + 1)  # and the head, in the pass of the prompts and eleven more


@pytest.mark.parametrize(("dtype", "merges"), [(torch.float32, True), (torch.bfloat16, False)])
def test_adapters_are_merged_into_the_same_four_products(causal_model, monkeypatch, dtype, merges):
    """In 16 bits each has its own, and the adapter beside it; without adapters, as the reference is, it is the base."""
    monkeypatch.setattr(module, "LEAST", 300)  # more than a matrix of an adapter has
    model = copy.deepcopy(causal_model("qwen2")).to(dtype)
    ids = torch.tensor([[3, 4, 5]])
    adapt(model, ModelArgs(pretrain="none", lora_rank=2, lora_alpha=6.0), seed=0)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if ".lora_B." in name:
                value.normal_(std=0.3, generator=torch.Generator().manual_seed(2))
        adapted, layers = model(ids).logits, model.config.num_hidden_layers
        with adapters_of(model).at_the_start():
            base = model(ids).logits
        for wanted, state in ((adapted, nullcontext()), (base, adapters_of(model).at_the_start())):
            with state, packed(model):
                torch.testing.assert_close(model(ids).logits, wanted, rtol=0, atol=1e-5 if merges else 0.1)
                counted = products(lambda: model(ids))
            assert counted == (4 if merges else 7) * layers + 1
    assert float((adapted - base).abs().max()) > 0.5 and torch.equal(model(ids).logits, adapted)


def test_the_keys_and_values_of_prompts_hold_nothing_else(causal_model, monkeypatch):
    """Of what is computed together they are a part, which would keep the whole as long as samples wait."""
    monkeypatch.setattr(module, "LEAST", 1)
    model = causal_model("llama")
    with torch.no_grad(), packed(model):
        layer = Prompts(model, [(3, 4), (5, 6)], room=4).cache.layers[0]
    for states in (layer.keys, layer.values):
        assert states.untyped_storage().nbytes() == states.nbytes
