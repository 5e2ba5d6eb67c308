"""What does not train, of a text model and of every family that sees."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from vision_models import FAMILIES, model_args, save_tiny

from lightrft.errors import Refused
from lightrft.models.critic import load_critic
from lightrft.models.empty import GivenWeights
from lightrft.models.freezing import parts_of, told
from lightrft.models.load import count_frozen, described_model, load_model

TOWER = {  # parameters of the tiny models: tower, projector, language model
    "qwen2_vl": ("model.visual.blocks.0.", "model.visual.merger."),
    "qwen2_5_vl": ("model.visual.blocks.0.", "model.visual.merger."),
    "qwen3_vl": ("model.visual.blocks.0.", "model.visual.merger."),
    "llava": ("model.vision_tower.", "model.multi_modal_projector."),
    "idefics3": ("model.vision_model.", "model.connector."),
    "gemma3": ("model.vision_tower.", "model.multi_modal_projector."),
}


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory):
    return request.param, save_tiny(request.param, tmp_path_factory.mktemp(request.param))


def trained(folder, **changes) -> set[str]:
    model = load_model(model_args(folder, **changes), torch.float32, torch.device("cpu"), trains=True)
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_the_vision_tower_is_frozen_by_any_of_its_names(folder):
    family, path = folder
    tower, projector = TOWER[family]
    everything = trained(path)
    for name in ("visual", "vision_tower"):
        frozen = everything - trained(path, freeze_prefix=(name,))
        assert frozen and any(n.startswith(tower) for n in frozen)
        assert not any(n.startswith(projector) or "layers" in n.split("visual")[0] for n in frozen if "language" in n)
    assert frozen == parts_of(described_model(model_args(path)))["vision tower"]
    assert any(n.startswith(projector) for n in everything - frozen)


def test_parts_are_all_parameters_once(folder):
    _, path = folder
    parts = parts_of(described_model(model_args(path)))
    assert sum(map(len, parts.values())) == len(set().union(*parts.values())) == len(trained(path))
    assert all(parts.values())


def test_the_projector_alone_trains(folder):
    family, path = folder
    left = trained(path, freeze_prefix=("visual",), freeze_backbone=True)
    assert left == parts_of(described_model(model_args(path)))["projector"]
    assert all(name.startswith(TOWER[family][1]) or "merger" in name for name in left)


def test_the_plan_counts_what_trains(folder):
    _, path = folder
    args = model_args(path, freeze_prefix=("visual",), tune_projector=False)
    line = told(described_model(args), args)
    assert line.startswith("parameters that train: 0 of ") and "(vision tower), 0 of" in line


@pytest.mark.parametrize(
    "changes, line",
    [
        ({"freeze_prefix": ("nothing",)}, "--freeze_prefix nothing: no parameter's name begins so; those there: "),
        ({"freeze_prefix": ("",)}, "leave no parameter"),
        ({"freeze_prefix": ("visual",), "freeze_backbone": True, "tune_projector": False}, "leave no parameter"),
    ],
)
def test_what_cannot_be(folder, changes, line):
    with pytest.raises(Refused, match=line):
        trained(folder[1], **changes)


def test_of_a_text_model(tiny_folder):
    path = tiny_folder / "model"
    everything = trained(path)
    left = trained(path, freeze_prefix=("layers.0", "model.embed_tokens"))
    assert everything - left == {n for n in everything if n.startswith(("model.layers.0.", "model.embed_tokens"))}
    with pytest.raises(Refused, match="--no-tune_projector: --pretrain .* has no projector of images; leave it out"):
        trained(path, tune_projector=False)


def test_a_critic_trains_whole(folder):
    """The flags are of the policy, also where the critic starts from its model."""
    args = model_args(folder[1], freeze_prefix=("visual",), freeze_backbone=True)
    critic = load_critic(args, torch.float32, torch.device("cpu"))
    assert all(parameter.requires_grad for parameter in critic.parameters())
    whole = sum(parameter.numel() for parameter in described_model(args).parameters())
    left = trained(folder[1], freeze_prefix=("visual",), freeze_backbone=True)
    sizes = {name: parameter.numel() for name, parameter in described_model(args).named_parameters()}
    assert whole - count_frozen(args) == sum(sizes[name] for name in left)
    assert count_frozen(model_args(folder[1])) == 0


@pytest.mark.parametrize("load", [partial(load_model, trains=True), load_critic], ids=["policy", "critic"])
def test_every_family_can_be_read_in_parts(folder, load):
    """`--meta_init`: whatever its files call a tensor. The tower's buffers, which are in no file, are made."""
    args, at = model_args(folder[1]), (torch.float32, torch.device("cpu"))
    whole, empty = load(args, *at), load(args, *at, empty=True)
    files = GivenWeights(args, empty)
    buffers = dict(empty.named_buffers())
    assert all(torch.equal(buffers[name], value) for name, value in whole.named_buffers())
    named = dict(whole.named_parameters())  # tied ones once
    missing = [name for name in named if not files.has("weight", name)]
    assert missing == (["score.weight"] if load is load_critic else [])
    for name, value in named.items():
        if name not in missing:
            assert dict(empty.named_parameters())[name].is_meta
            half = value.numel() // 2  # a range that begins within a row
            assert torch.equal(files.read("weight", name, half, value.numel() - half), value.detach().flatten()[half:])
