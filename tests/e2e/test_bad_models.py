"""A --pretrain that is no model, or a broken one: one line with the flag and a remedy, before any data are read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from refusals import assert_refused


def test_no_such_model(here):
    assert_refused(
        "--pretrain ./nowhere", "--pretrain ./nowhere", "no such model folder", "give a folder with config.json"
    )
    assert_refused("--pretrain nowhere", "--pretrain nowhere", "hub name")
    assert_refused("--pretrain no-org/no-model", "--pretrain no-org/no-model")


def test_a_file_for_a_model(here):
    assert_refused("--pretrain add.jsonl", "--pretrain add.jsonl", "give a folder")


def test_a_model_folder_without_config(here):
    Path("empty").mkdir()
    assert_refused("--pretrain empty", "--pretrain empty", "config.json", "Hugging Face model folder")


@pytest.mark.parametrize(
    "damage, told",
    [
        ("cut", "its model.safetensors cannot be read"),
        ("garbage", "its model.safetensors cannot be read"),
        ("missing", "it has no weights (model.safetensors)"),
        ("pointer", "its model.safetensors only names the weights, which Git LFS keeps; `git lfs pull` in the folder"),
    ],
)
def test_corrupt_weights(here, monkeypatch, damage, told):
    """Before any data are read; in one file or several."""
    monkeypatch.setattr("lightrft.preflight.load_prompts", lambda *_, **__: pytest.fail("data were read"))
    shutil.copytree("tiny", "broken")
    path = Path("broken/model.safetensors")
    whole, pointer = path.read_bytes(), b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"cut": whole[: len(whole) // 2], "garbage": whole[::-1], "pointer": pointer}[damage])
    assert_refused("--pretrain broken", f"--pretrain broken: {told}")
    if damage != "missing":
        part = path.rename("broken/model-00001-of-00001.safetensors").name
        Path("broken/model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": part}}))
        assert_refused("--pretrain broken", f"--pretrain broken: {told.replace('model.safetensors', part)}")


def test_a_broken_config(here):
    shutil.copytree("tiny", "broken")
    Path("broken/config.json").write_text('{"model_type": "no_such_type"}')
    assert_refused("--pretrain broken", "--pretrain broken")
    Path("broken/config.json").write_text("{")
    assert_refused("--pretrain broken", "--pretrain broken")


def test_weights_that_do_not_fit(here):
    """The library would fill in random numbers for a weight that is not there, and start training from them."""
    from safetensors.torch import load_file, save_file

    shutil.copytree("tiny", "broken")
    state = load_file("tiny/model.safetensors")
    name = next(name for name in state if "q_proj.weight" in name)
    save_file({k: v for k, v in state.items() if k != name}, "broken/model.safetensors", {"format": "pt"})
    assert_refused(
        "--pretrain broken", "--pretrain broken: 1 weights are missing", name, "give a whole causal language model"
    )
    save_file({**state, name: state[name][:8].clone()}, "broken/model.safetensors", {"format": "pt"})
    assert_refused("--pretrain broken", f"--pretrain broken: {name} is 8 x 128 in its weights", "of the same model")
