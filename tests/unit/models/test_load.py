from __future__ import annotations

import json
import shutil
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file
from vision_models import save_tiny

from lightrft.args.groups.model import ModelArgs
from lightrft.errors import Refused
from lightrft.models.load import described_model, load_backbone, load_model
from lightrft.models.tokenizer import load_tokenizer

CPU = torch.device("cpu")
trained = partial(load_model, trains=True)


def refusal(call, *arguments):
    with pytest.raises(Refused) as caught:
        call(*arguments)
    message = str(caught.value)
    assert "\n" not in message and message.startswith("--pretrain ")
    return message


def test_an_unknown_architecture_is_refused_in_one_line(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no_such_model"}))
    assert "the configuration cannot be loaded" in refusal(
        trained, ModelArgs(pretrain=str(tmp_path)), torch.float32, CPU
    )


@pytest.mark.parametrize("damage", ["missing", "cut short"])
def test_damaged_weights_are_refused_in_one_line(tiny_folder, tmp_path, damage):
    shutil.copytree(tiny_folder / "model", tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.unlink() if damage == "missing" else weights.write_bytes(weights.read_bytes()[:1000])
    args = ModelArgs(pretrain=str(tmp_path / "model"))
    assert "the model cannot be loaded" in refusal(trained, args, torch.float32, CPU)


def test_weights_that_the_file_does_not_hold_are_not_made_up(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder / "model", tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    kept = {name: value.clone() for name, value in load_file(weights).items() if name != "model.norm.weight"}
    save_file(kept, weights, metadata={"format": "pt"})
    message = refusal(trained, ModelArgs(pretrain=str(tmp_path / "model")), torch.float32, CPU)
    assert "model.norm.weight" in message


def changed(tiny_folder, folder, config=None, weights=None):
    """A copy of the tiny model with other settings in its config.json, and weights beside its own."""
    shutil.copytree(tiny_folder / "model", folder)
    settings = json.loads((folder / "config.json").read_text()) | (config or {})
    (folder / "config.json").write_text(json.dumps(settings))
    if weights:
        own = load_file(folder / "model.safetensors")
        save_file({**own, **weights}, folder / "model.safetensors", metadata={"format": "pt"})
    return ModelArgs(pretrain=str(folder))


ONE_LAYER = {"num_hidden_layers": 1, "layer_types": ["full_attention"]}


@pytest.mark.parametrize(
    "call",
    [lambda args: trained(args, torch.float32, CPU), lambda args: load_backbone(args, torch.float32)],
)
@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"hidden_size": 96}, "embed_tokens.weight is 16 x 128 in its weights and 16 x 96 by its config.json (25 more"),
        ({"vocab_size": 7}, "embed_tokens.weight is 16 x 128 in its weights and 7 x 128 by its config.json; give a"),
        (ONE_LAYER, "its config.json has no layer for model.layers.1.input_layernorm.weight of its weights; give a"),
    ],
)
def test_a_configuration_of_another_model_is_refused_in_one_line_and_no_table(
    tiny_folder, tmp_path, capfd, call, config, expected
):
    assert expected in refusal(call, changed(tiny_folder, tmp_path / "model", config))
    assert capfd.readouterr() == ("", "")


def test_weights_that_the_model_has_no_place_for_are_told_once_and_of_a_critic_not_at_all(tiny_folder, tmp_path, capfd):
    args = changed(tiny_folder, tmp_path / "model", weights={"v_head.weight": torch.zeros(1, 128)})
    load_backbone(args, torch.float32)
    assert capfd.readouterr() == ("", "")
    for _ in range(2):
        trained(args, torch.float32, CPU)
    what = "1 of its weights, such as v_head.weight, have no place in the model of its config.json and are left out"
    assert capfd.readouterr() == ("", f"warning: --pretrain {args.pretrain}: {what}\n")


@pytest.mark.parametrize("trains", [True, False])
def test_the_model_comes_in_its_dtype_with_dropout_off_and_trains_or_not(tiny_folder, trains):
    model = load_model(ModelArgs(pretrain=str(tiny_folder / "model")), torch.bfloat16, CPU, trains=trains)
    assert {(p.dtype, p.requires_grad) for p in model.parameters()} == {(torch.bfloat16, trains)}
    assert not any(module.training for module in model.modules())


KERNELS = ("_attn_implementation", "attn_implementation")


@pytest.mark.parametrize("key", KERNELS)
@pytest.mark.parametrize(("flag", "kernel"), [(None, "eager"), ("eager", "eager"), ("sdpa", "sdpa")])
def test_the_flag_chooses_the_attention_whatever_config_json_names(tiny_folder, tmp_path, key, flag, kernel):
    """It speaks without the flag alone."""
    changed(tiny_folder, tmp_path / "model", {key: "eager"})
    args = ModelArgs(pretrain=str(tmp_path / "model"), attn_implementation=flag)
    for load in (partial(load_model, device=CPU, trains=True), load_backbone):
        assert kernels_of(load(args, dtype=torch.float32)) == kernels_of(load(args, dtype=torch.float32, empty=True))
        assert kernels_of(load(args, dtype=torch.float32)) == {kernel}


@pytest.mark.parametrize("key", KERNELS)
def test_the_flag_chooses_it_in_all_parts_of_a_model_that_sees(tmp_path, key):
    folder = save_tiny("qwen2_5_vl", tmp_path / "model")
    settings = json.loads((folder / "config.json").read_text())
    parts = {name: {**settings[name], key: "eager"} for name in ("text_config", "vision_config")}
    (folder / "config.json").write_text(json.dumps({**settings, **parts, key: "eager"}))
    args = ModelArgs(pretrain=str(folder), attn_implementation="sdpa")
    assert kernels_of(trained(args, torch.float32, CPU)) == {"sdpa"}


@pytest.mark.parametrize("key", KERNELS)
def test_a_model_that_is_only_described_needs_no_kernel(tiny_folder, tmp_path, key):
    """Nobody has this one here; its parameters are counted all the same."""
    changed(tiny_folder, tmp_path / "model", {key: "flash_attention_2"})
    assert kernels_of(described_model(ModelArgs(pretrain=str(tmp_path / "model")))) == {"eager"}


def kernels_of(model):
    """What its parts look up when they compute attention."""
    return {module.config._attn_implementation for module in model.modules() if hasattr(module, "config")}


def test_a_tokenizer_without_padding_gets_none(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder / "model", tmp_path / "model")
    path = tmp_path / "model" / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings["pad_token"] = None
    path.write_text(json.dumps(settings))
    assert load_tokenizer(ModelArgs(pretrain=str(tmp_path / "model"))).pad_token is None
    assert load_tokenizer(ModelArgs(pretrain=str(tiny_folder / "model"))).pad_token_id == 0
