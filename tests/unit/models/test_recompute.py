"""`--gradient_checkpointing`: the gradients of a model that keeps all, and of what it keeps."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer
from vision_case import Case
from vision_models import FAMILIES, save_tiny

from lightrft.errors import Refused
from lightrft.models.recompute import recompute_layers

IDS = torch.randint(3, 61, (2, 12), generator=torch.Generator().manual_seed(0))


def twice(model: nn.Module) -> nn.Module:
    model = copy.deepcopy(model)
    recompute_layers(model, "--pretrain tiny")
    return model


def gradients(model: nn.Module) -> tuple[dict[str, torch.Tensor], int]:
    """Of a sum over logits, and the bytes that were kept for it outside of the parameters."""
    kept: dict[int, int] = {}
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def keep(value: torch.Tensor) -> torch.Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        loss = model(input_ids=IDS, use_cache=False).logits.float().square().mean()
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, sum(kept.values())


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2", "gemma3", "mistral", "gpt2"])
def test_gradients_are_the_same_bits_and_a_third_is_kept(causal_model, kind):
    model = copy.deepcopy(causal_model(kind))
    (wanted, all_kept), (found, kept) = gradients(model), gradients(twice(model.requires_grad_(True)))
    assert found.keys() == wanted.keys() and len(found) == len(list(model.parameters()))
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert kept < all_kept / 3


def test_parameters_above_layers_that_are_frozen_learn(causal_model):
    model = copy.deepcopy(causal_model("llama"))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("layers.1" in name)
    wanted, found = gradients(model)[0], gradients(twice(model))[0]
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


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
