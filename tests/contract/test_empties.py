"""`--meta_init`: models whose ranks read their own shards are, to the bit, those that are loaded whole."""

from __future__ import annotations

import json

import pytest
import torch
from empties import LAYOUTS, check, save_models
from launch import launch
from policies import arguments
from safetensors.torch import load_file, save_file
from transformers import MixtralConfig, MixtralForCausalLM

from lightrft.errors import Refused
from lightrft.models.load import load_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("empties")
    save_models(folder)
    return folder


@pytest.mark.parametrize("layout", LAYOUTS, ids=" ".join)
def test_on_one_process(world, folder, layout):
    check(world, folder, layout, "tied")


@pytest.mark.parametrize("processes", (2, 3))
def test_on_several(folder, processes):
    """In one launch: three processes do not divide the tensors."""
    launch("empties.py", processes, folder, seconds=300)


def refusal(folder, flags: str) -> str:
    args = arguments(f"--fsdp {flags} --pretrain {folder}")
    with pytest.raises(Refused) as refused:
        load_model(args.model, torch.float32, torch.device("cpu"), trains=True, empty=args.distributed.meta_init)
    return str(refused.value)


def broken(folder, name: str, **config):
    """The untied model under another name; its tensors may then be changed."""
    place = folder / name
    place.mkdir()
    known = json.loads((folder / "untied/config.json").read_text())
    (place / "config.json").write_text(json.dumps({**known, **config}))
    return place, load_file(folder / "untied/model.safetensors")


@pytest.mark.parametrize("what", ("missing", "reshaped", "shallow"))
def test_files_of_another_model_are_refused_alike(folder, what):
    place, tensors = broken(
        folder, what, **({"num_hidden_layers": 1, "layer_types": ["full_attention"]} if what == "shallow" else {})
    )
    if what == "missing":
        del tensors["model.norm.weight"]
    elif what == "reshaped":
        tensors["lm_head.weight"] = tensors["lm_head.weight"][:, :32].contiguous()
    save_file(tensors, place / "model.safetensors", {"format": "pt"})
    assert refusal(place, "--meta_init") == refusal(place, "")


def test_weights_that_are_converted_are_refused(tmp_path):
    config = MixtralConfig(
        vocab_size=16, hidden_size=32, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, num_local_experts=2,
    )  # fmt: skip
    MixtralForCausalLM(config).save_pretrained(tmp_path)
    text = refusal(tmp_path, "--meta_init")
    assert text.startswith("--meta_init: --pretrain") and text.endswith("read as a whole; leave --meta_init out")
    assert "holds model.layers.0.block_sparse_moe.experts.0.w1.weight, which is merged, split or turned" in text


def test_a_weight_beside_the_one_that_it_is_tied_to_is_refused(folder):
    place, tensors = broken(folder, "both", tie_word_embeddings=True)
    save_file(tensors, place / "model.safetensors", {"format": "pt"})
    assert "hold lm_head.weight beside the weight that its config.json ties it to" in refusal(place, "--meta_init")
