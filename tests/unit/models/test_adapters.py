"""Adapters against PEFT's own: what they change, which layers have them, what trains, and where a run starts from."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from functools import partial

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from vision_models import FAMILIES, model_args, save_tiny

from lightrft.args.groups.model import ModelArgs
from lightrft.errors import Refused
from lightrft.models.adapters import adapt, adapted_layers, adapters_of
from lightrft.models.flops import Work
from lightrft.models.freezing import parts_of, told, trains_language
from lightrft.models.given import Given
from lightrft.models.load import (
    check_what_trains,
    count_adapters,
    count_frozen,
    count_parameters,
    described_model,
    load_model,
)
from lightrft.models.packing import Cost
from lightrft.strategy.base import named_tensors

IDS = torch.arange(4, 15)[None]
CPU = torch.device("cpu")
FROZEN = ("layers.0", "layers.1")
OTHERS = "those that can have one: down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj, all-linear$"


@pytest.fixture
def model(tiny_folder):
    """(changes of the flags, seed=0) -> the tiny model as a run loads it: four layers of LoRA in each of its two."""

    def load(seed: int = 0, dtype: torch.dtype = torch.float32, **changes):
        args = ModelArgs(pretrain=str(tiny_folder / "model"), **{"lora_rank": 4, **changes})
        return load_model(args, dtype, CPU, trains=True, seed=seed)

    return load


def filled(model):
    """Adapters that do something: the second matrix of a new one is 0."""
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name and parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.1)
    return model


def of_peft(model, path, given: Given | None = None):
    """The path, with the adapter that `model` has."""
    adapters = adapters_of(model)
    adapters.save(((n, v) for n, v in named_tensors(model) if n in adapters.names), given or Given(), path)
    return path


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


def trained(model) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_a_new_adapter_changes_nothing(model, tiny_model):
    adapted = model()
    assert torch.equal(logits(adapted), logits(tiny_model))
    assert (
        trained(adapted) == {n for n, _ in adapted.named_parameters() if ".default." in n} == adapters_of(adapted).names
    )
    assert len(adapted_layers(adapted)) == 2 * 7


def test_it_starts_alike_in_every_precision_and_otherwise_from_every_seed(model):
    first, same, half, other = (
        {n: p for n, p in made.named_parameters() if ".lora_A." in n}
        for made in (model(), model(), model(dtype=torch.bfloat16), model(seed=1))
    )
    assert all(torch.equal(p, same[n]) and torch.equal(p, half[n]) for n, p in first.items())
    assert all(not torch.equal(p, other[n]) for n, p in first.items())
    assert all(p.dtype == torch.float32 for p in half.values())


@pytest.mark.parametrize("kind", ["qwen2", "gpt2"])
def test_merged_weights_are_those_that_peft_merges(causal_model, kind, tmp_path):
    """Under the model's own names, also where weights are kept as their transposes."""
    adapted = deepcopy(causal_model(kind))
    adapt(adapted, ModelArgs(pretrain="none", lora_rank=4, lora_alpha=6.0), seed=0)
    filled(adapted)
    merged = dict(adapters_of(adapted).merged(named_tensors(adapted)))
    peft = PeftModel.from_pretrained(deepcopy(causal_model(kind)), of_peft(adapted, tmp_path))
    assert torch.allclose(logits(peft.eval()), logits(adapted), atol=1e-6)
    wanted = dict(named_tensors(peft.merge_and_unload()))
    assert merged.keys() == wanted.keys()
    assert all(torch.allclose(value, wanted[name], atol=1e-6) for name, value in merged.items())
    assert any(not torch.equal(value, dict(named_tensors(causal_model(kind)))[n]) for n, value in merged.items())


def test_adapters_are_merged_in_float32_whatever_the_weights_are_in(model):
    """A is 1 and B 2 ^ -10, of rank 4 and scale 4: 2 ^ -6 more, which bfloat16 does not see beside a weight of 8."""
    adapted, name = model(dtype=torch.bfloat16), "model.layers.0.mlp.up_proj"
    layer = adapted_layers(adapted)[name]
    with torch.no_grad():
        layer.base_layer.weight.fill_(8)
        layer.lora_A["default"].weight.fill_(1)
        layer.lora_B["default"].weight.fill_(2**-10)
    assert layer.scaling["default"] == 4
    merged = dict(adapters_of(adapted).merged(named_tensors(adapted)))[f"{name}.weight"]
    assert merged.dtype == torch.float32 and bool((merged == 8 + 2**-6).all())


def test_transformers_opens_it_with_its_model(model, tmp_path):
    adapted = filled(model())
    given = Given({"tokenizer.json": b"{}", "config.json": b"{}", "generation_config.json": b"{}", "code.py": b""})
    of_peft(adapted, tmp_path, given)
    assert {path.name for path in tmp_path.iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "tokenizer.json"
    }  # fmt: skip
    opened = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.allclose(logits(opened), logits(adapted), atol=1e-6)


def test_the_start_is_the_model_without(model, tiny_model):
    adapted = filled(model())
    before, learns = logits(adapted), trained(adapted)
    with adapters_of(adapted).at_the_start():
        assert torch.equal(logits(adapted), logits(tiny_model)) and trained(adapted) == learns
    assert torch.equal(logits(adapted), before) and not torch.equal(before, logits(tiny_model))


def test_a_run_that_starts_from_an_adapter_has_it_as_its_reference(model, tmp_path):
    first = filled(model(lora_alpha=6.0))
    path = str(of_peft(first, tmp_path))
    second = model(lora_rank=0, lora_path=path)
    start = logits(first)
    assert torch.equal(logits(second), start)
    assert trained(second) == trained(first) == set(adapters_of(second).names)
    filled(second)  # as if it had learned
    with torch.no_grad():
        next(p for n, p in second.named_parameters() if "lora_A.default" in n).mul_(2)
    assert not torch.equal(logits(second), start)
    with adapters_of(second).at_the_start():
        assert torch.equal(logits(second), start)
    merged = dict(adapters_of(second).merged(named_tensors(second)))
    assert merged.keys() == dict(adapters_of(first).merged(named_tensors(first))).keys()


@pytest.mark.parametrize(
    "targets, layers",
    [
        (("all-linear",), "qkvo gud"),
        (("q_proj", "v_proj"), "qv"),
        (("mlp.up_proj", "self_attn.o_proj"), "ou"),
        (("layers.0.mlp.gate_proj",), "g"),
    ],
)
def test_layers_are_named_by_their_ends(model, tmp_path, targets, layers):
    adapted = model(target_modules=targets)
    found = {name.rpartition(".")[2] for name in adapted_layers(adapted)}
    assert {name[0] for name in found} == set(layers.replace(" ", ""))
    count = 1 if "0" in targets[0] else 2
    assert len(adapted_layers(adapted)) == count * len(found)
    config = json.loads((of_peft(adapted, tmp_path) / "adapter_config.json").read_text())
    named = set(config["target_modules"])
    assert config["inference_mode"], "as PEFT's own files say"
    assert named == found if count == 2 else named == {"model.layers.0.mlp.gate_proj"}


@pytest.mark.parametrize(
    "bias, count", [("none", 0), ("lora_only", 2), ("all", 6)]
)  # q, k and v have one in each of two layers
def test_biases_that_train(model, bias, count, tmp_path, tiny_model):
    adapted = filled(model(target_modules=("q_proj",), lora_bias=bias))
    biases = {name for name in trained(adapted) if name.endswith("bias")}
    assert len(biases) == count and biases <= adapters_of(adapted).names
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if name in biases:
                parameter.add_(1)
    opened = PeftModel.from_pretrained(deepcopy(tiny_model), of_peft(adapted, tmp_path))
    assert torch.allclose(logits(opened), logits(adapted), atol=1e-6)
    merged = dict(adapters_of(adapted).merged(named_tensors(adapted)))
    whole = deepcopy(tiny_model)
    whole.load_state_dict(merged, strict=False)
    assert torch.allclose(logits(whole), logits(adapted), atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"target_modules": ["lm_head"]}, "it adapts the output head, tied to the embeddings"),
        ({"init_lora_weights": "pissa"}, "its init_lora_weights pissa has changed the model's own weights"),
    ],
)
def test_an_adapter_that_does_not_fit_the_model_as_it_is_is_refused(model, tiny_model, tmp_path, settings, line):
    """Tied weights are one tensor, and PEFT takes off them what such a way to begin moved into the adapter."""
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    get_peft_model(deepcopy(tiny_model), config).save_pretrained(tmp_path / "given")
    path = tmp_path / "given" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    with pytest.raises(Refused, match=line):
        model(lora_path=str(tmp_path / "given"))


def test_nothing_trains_in_a_layer_that_flags_freeze(model, tmp_path):
    """No bias, and no adapter that is there already: it stays as it was given."""
    frozen, path = {"freeze_prefix": ("layers.0",)}, str(of_peft(filled(model()), tmp_path))
    for adapted, count in ((model(lora_bias="all", **frozen), 14 + 3), (model(lora_path=path, **frozen), 14)):
        assert len(trained(adapted)) == count and all(".layers.1." in name for name in trained(adapted))
        assert len(adapters_of(adapted).names) == (count if count > 14 else 28)


def test_an_adapter_whose_layers_are_all_frozen_is_refused(model, tmp_path):
    path = str(of_peft(model(target_modules=("q_proj",)), tmp_path))
    with pytest.raises(Refused, match=f"^--lora_path {path}: flags freeze all layers that it adapts; freeze less"):
        model(lora_rank=0, lora_path=path, freeze_prefix=("layers.0", "layers.1"))


@pytest.mark.parametrize(
    "changes, line",
    [
        ({"target_modules": ("proj",)}, f"--target_modules proj: no linear layer's name ends so; {OTHERS}"),
        (
            {"target_modules": ("q_proj", "lm_head")},
            f"--target_modules lm_head: lm_head is tied to the embeddings, which adapters would part; {OTHERS}",
        ),
        (
            {"target_modules": ("proj",), "freeze_prefix": ("layers.0.mlp", "layers.1.mlp")},
            "--target_modules proj: .* ends so; those that can have one: k_proj, o_proj, q_proj, v_proj, all-linear$",
        ),
        (
            {"target_modules": ("proj",), "freeze_prefix": FROZEN},
            "--target_modules proj: no linear layer's name ends so; flags freeze all that can have one; freeze less$",
        ),
        ({"freeze_prefix": FROZEN}, "--target_modules all-linear: flags freeze all layers that it names; freeze less"),
        ({"lora_path": "nowhere"}, "--lora_path nowhere: no such folder here, and as a hub name"),
    ],
)
def test_what_cannot_be(model, changes, line):
    with pytest.raises(Refused, match=line):
        model(**changes)


@pytest.mark.parametrize(
    "damage, line",
    [
        ({"use_dora": True}, "its use_dora is not taken"),
        ({"peft_type": "IA3"}, "its peft_type is IA3; give an adapter of LoRA"),
        ({"bias": "all"}, "it has trained biases"),
        ({"r": 8}, "is 4 x 128, in --pretrain .* 8 x 128"),
        ({"target_modules": ["q_proj"]}, "down_proj.lora_A.weight is in it alone"),
        ({"target_modules": ["query_key_value"]}, "PEFT cannot add it to --pretrain .*query_key_value.* not found"),
        ({"target_modules": "(("}, "PEFT cannot add it to --pretrain .*missing \\)"),
        ({"r": 0}, "PEFT cannot add it to --pretrain .*positive integer"),
        ({"target_modules": ["embed_tokens"]}, r"it adapts model.embed_tokens \(Embedding\); only adapters of linear"),
        ("config", "its adapter_config.json cannot be read"),
        ("weights", "its adapter_model.safetensors cannot be read"),
    ],
)
def test_an_adapter_that_cannot_be_started_from(model, tmp_path, damage, line):
    path = of_peft(model(), tmp_path)
    config, weights = path / "adapter_config.json", path / "adapter_model.safetensors"
    if isinstance(damage, dict):
        config.write_text(json.dumps({**json.loads(config.read_text()), **damage}))
    else:
        (config if damage == "config" else weights).write_bytes(b"{ ")
    with pytest.raises(Refused, match=f"^--lora_path {path}: .*{line}"):
        model(lora_rank=0, lora_path=str(path))


def test_an_adapter_of_peft_itself_is_started_from(model, tiny_model, tmp_path):
    """With a scale by the root of the rank, and a dropout, which is off, and would be where layers train."""
    config = LoraConfig(r=9, lora_alpha=3, target_modules="all-linear", use_rslora=True, lora_dropout=0.5)
    peft = filled(get_peft_model(deepcopy(tiny_model), config).eval())
    peft.save_pretrained(tmp_path)
    assert torch.allclose(logits(model(lora_rank=0, lora_path=str(tmp_path))), logits(peft), atol=1e-6)
    started = model(lora_rank=0, lora_path=str(tmp_path)).train()
    assert torch.equal(logits(started), logits(started)) and adapters_of(started).config.lora_dropout == 0
    weights = load_file(tmp_path / "adapter_model.safetensors")
    save_file(weights, tmp_path / "adapter_model.safetensors")  # a file without metadata is as good
    assert torch.allclose(logits(model(lora_rank=0, lora_path=str(tmp_path))), logits(peft), atol=1e-6)


def test_what_it_began_with_is_beside_the_model_and_counts_once(model, tmp_path, tiny_folder):
    """Not among the parameters of the policy, nor as work of a pass; in memory it is."""
    own = ModelArgs(pretrain=str(tiny_folder / "model"), lora_rank=4)
    path = str(of_peft(model(), tmp_path))
    begun = replace(own, lora_path=path)
    assert told(described_model(begun), begun) == told(described_model(own), own)
    assert Work.of(model(lora_path=path)) == Work.of(model()) and Cost.of(model(lora_path=path)) == Cost.of(model())
    assert count_adapters(begun) == 2 * count_adapters(own)


def test_the_plan_counts_adapters(tiny_folder):
    args = ModelArgs(pretrain=str(tiny_folder / "model"), lora_rank=4, target_modules=("q_proj",))
    assert count_adapters(args) == 2 * 4 * (128 + 128) == 2048
    whole = count_parameters(args)
    assert count_frozen(args) == whole
    line = told(described_model(args), args)
    assert line == (f"parameters that train: 2,048 of {whole + 2048:,} (language model); LoRA of rank 4 in 2 layers")


def test_a_rank_that_no_layer_can_use_is_refused_before_data_are_read(tiny_folder):
    args = partial(ModelArgs, pretrain=str(tiny_folder / "model"))
    what = "is above the smaller side of every layer that it adapts, beyond which a rank gains nothing"
    with pytest.raises(Refused) as refused:
        check_what_trains(args(lora_rank=129))
    assert str(refused.value) == f"--lora_rank 129 {what}; use at most 128"
    check_what_trains(args(lora_rank=128))


@pytest.mark.parametrize("family", FAMILIES)
def test_of_a_model_that_sees_either_part_or_both(family, tmp_path):
    """By what is frozen: the tower, or the language model."""
    load = partial(load_model, dtype=torch.float32, device=CPU, trains=True)
    args = partial(model_args, save_tiny(family, tmp_path), lora_rank=2)
    parts = parts_of(described_model(args(lora_rank=0)))

    def adapted(**changes) -> set[str]:
        model = load(args(**changes))
        layers = adapted_layers(model)
        found = {part for part, names in parts.items() for name in layers if f"{name}.weight" in names}
        assert trains_language(model) == ("language model" in found)
        return found

    linear = {"projector"} - ({"projector"} if family == "gemma3" else set())  # whose projector is a bare weight
    assert adapted() == {"vision tower", "language model"} | linear
    assert adapted(freeze_prefix=("visual",), tune_projector=False) == {"language model"}
    assert adapted(freeze_backbone=True, tune_projector=False) == {"vision tower"}
    if linear:
        assert adapted(freeze_backbone=True, freeze_prefix=("vision_tower",)) == linear
