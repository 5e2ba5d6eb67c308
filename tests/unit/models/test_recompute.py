"""`--gradient_checkpointing`: the gradients of a model that keeps all, and what is kept and computed, and where."""

from __future__ import annotations

import copy

import pytest
import torch
from kernel_calls import KernelCalls
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer
from vision_case import Case
from vision_models import FAMILIES, save_tiny

from lightrft.errors import Refused
from lightrft.models import recompute
from lightrft.models.recompute import recompute_layers
from lightrft.models.segments import Segments, Tree

IDS = torch.randint(3, 61, (2, 12), generator=torch.Generator().manual_seed(0))


FAMILIES_OF_TEXT = ("llama", "qwen2", "gemma2", "gemma3", "mistral", "gpt2")


def twice(model: nn.Module, **how: bool) -> nn.Module:
    model = copy.deepcopy(model)
    recompute_layers(model, "--pretrain tiny", **how)
    return model


def gradients(model: nn.Module, **more: Segments) -> tuple[dict[str, torch.Tensor], int]:
    """Of a sum over logits, and the bytes that were kept for it outside of the parameters."""
    kept: dict[int, int] = {}
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def keep(value: torch.Tensor) -> torch.Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        loss = model(input_ids=IDS, use_cache=False, **more).logits.float().square().mean()
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, sum(kept.values())


@pytest.mark.parametrize("kind", FAMILIES_OF_TEXT)
def test_gradients_are_the_same_bits_and_a_third_is_kept(causal_model, kind):
    model = copy.deepcopy(causal_model(kind))
    (wanted, all_kept), (found, kept) = gradients(model), gradients(twice(model.requires_grad_(True)))
    assert found.keys() == wanted.keys() and len(found) == len(list(model.parameters()))
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert kept < all_kept / 3


PACKED = Segments(((Tree(3, (4, 2)),), (Tree(2, (3,)), Tree(0, (7,)))), 12)
OF_SDPA = [(kind, {}) for kind in FAMILIES_OF_TEXT if kind != "gemma2"]
OF_BLOCKS = [(kind, {"segments": PACKED}) for kind in ("llama", "qwen2", "gpt2")]


@pytest.mark.parametrize(("kind", "more"), OF_SDPA + OF_BLOCKS)
def test_attention_that_is_kept_runs_once(causal_model, kind, more):
    gradients(copy.deepcopy(causal_model(kind)), **more)  # what is asked of kernels once in a process
    ran = {}
    for once in (False, True):
        model = twice(causal_model(kind), attention_once=once)
        with KernelCalls() as calls:
            found = gradients(model, **more)[0]
        ran[once] = calls.named("attention"), found
    (full, wanted), (selective, found) = ran[False], ran[True]
    assert full == 2 * selective > 0 and all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_attention_of_another_kind_is_refused(causal_model):
    with pytest.raises(Refused, match="--pretrain tiny runs eager; use --recompute_granularity full"):
        twice(causal_model("gemma2"), attention_once=True)


@pytest.mark.parametrize("kind", FAMILIES_OF_TEXT)
def test_inputs_of_layers_wait_elsewhere(causal_model, kind, monkeypatch):
    moved, to_host = [], recompute._to_host
    monkeypatch.setattr(recompute, "_to_host", lambda tensor: moved.append(tensor.shape) or to_host(tensor))
    model = copy.deepcopy(causal_model(kind)).requires_grad_(True)
    wanted, found = gradients(model)[0], gradients(twice(model, on_host=True))[0]
    assert moved == [(*IDS.shape, model.config.hidden_size)] * model.config.num_hidden_layers
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("how", [{}, {"attention_once": True}, {"on_host": True}])
def test_parameters_above_layers_that_are_frozen_learn(causal_model, how, monkeypatch):
    """Of the layers below, to which no gradient comes, nothing is kept."""
    moved, to_host = [], recompute._to_host
    monkeypatch.setattr(recompute, "_to_host", lambda tensor: moved.append(tensor.shape) or to_host(tensor))
    model = copy.deepcopy(causal_model("llama"))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("layers.1" in name)
    wanted, found = gradients(model)[0], gradients(twice(model, **how))[0]
    assert len(moved) == ("on_host" in how)
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_a_layer_whose_forward_others_have_replaced_is_computed_twice_with_that(causal_model):
    """By a function that knows its layer no more, as libraries that hook into a model do."""
    model, calls = copy.deepcopy(causal_model("llama")), []
    for layer in model.model.layers:
        own = layer.forward
        layer.forward = lambda *args, own=own, **kwargs: calls.append(own) or own(*args, **kwargs)
    wanted = gradients(copy.deepcopy(causal_model("llama")))[0]
    recompute_layers(model, "--pretrain tiny")
    found = gradients(model)[0]
    assert len(calls) == 2 * len(model.model.layers)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_a_model_without_such_layers_is_refused():
    with pytest.raises(Refused, match="--gradient_checkpointing: --pretrain tiny has no layers"):
        twice(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_that_see_are_among_them(family, tmp_path):
    model = Case(save_tiny(family, tmp_path)).model
    layers = [name for name, module in twice(model).named_modules() if "forward" in vars(module)]
    language = model.get_decoder()
    inside = {name for name, module in model.named_modules() for own in language.modules() if module is own}
    towers = [name for name in layers if name not in inside]
    assert len(layers) - len(towers) == model.config.get_text_config().num_hidden_layers and towers
    repeated = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    assert len(layers) == len(repeated)


class Named(GradientCheckpointingLayer):
    """A layer whose model calls it by the name of what it takes."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([2.0, -1.0]))

    def forward(self, states, scale):
        return (self.weight * states * scale).sin()


class ByName(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = Named()

    def forward(self, states):
        return self.layer(states=states, scale=torch.tensor(3.0))


def test_an_input_that_is_given_by_its_name_waits_elsewhere_too(monkeypatch):
    moved, to_host = [], recompute._to_host
    monkeypatch.setattr(recompute, "_to_host", lambda tensor: moved.append(tensor.tolist()) or to_host(tensor))
    states = torch.tensor([0.5, 0.25], requires_grad=True)
    (wanted,) = torch.autograd.grad(ByName()(states).sum(), states)
    (found,) = torch.autograd.grad(twice(ByName(), on_host=True)(states).sum(), states)
    assert moved == [[0.5, 0.25]] and torch.equal(found, wanted)


@pytest.mark.gpu
def test_inputs_of_layers_leave_the_gpu(causal_model):
    """Eight rows of 256 tokens of width 32 in float32: 256 KiB a layer, whose last one is still there."""
    base = copy.deepcopy(causal_model("llama")).cuda()
    ids, held = IDS.repeat(4, 22)[:, :256].cuda(), {}
    for on_host in (False, True):
        model = twice(base, on_host=on_host)
        before = torch.cuda.memory_allocated()
        loss = model(input_ids=ids, use_cache=False).logits.square().mean()
        held[on_host] = torch.cuda.memory_allocated() - before
        loss.backward()
    assert held[False] - held[True] >= (base.config.num_hidden_layers - 1) * 8 * 256 * 32 * 4
