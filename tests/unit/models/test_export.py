from __future__ import annotations

import copy
import os

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightrft.models.export import save_hf
from lightrft.strategy.base import named_tensors


def names(path):
    with safe_open(path / "model.safetensors", "pt") as file:
        return set(file.keys())


def greedy(model, ids):
    return model.generate(torch.tensor([ids]), max_new_tokens=6, do_sample=False, pad_token_id=0)[0].tolist()


def changed(model):
    """As after training: not the weights that the model was loaded with."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)
    return model


@pytest.mark.parametrize("kind", ["tiny", "llama", "qwen2", "gemma2", "gpt2"])
def test_an_export_opens_as_a_hugging_face_model_that_generates_the_same(
    tiny_model, tiny_tokenizer, causal_model, tmp_path, kind
):
    model = changed(tiny_model if kind == "tiny" else causal_model(kind))
    save_hf(model, named_tensors(model), tiny_tokenizer, tmp_path)
    opened = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    for name, value in model.state_dict().items():
        assert torch.equal(opened.state_dict()[name], value), name
    assert greedy(opened, [1, 7, 14, 9]) == greedy(model, [1, 7, 14, 9])
    assert AutoTokenizer.from_pretrained(tmp_path)("3+5=").input_ids == tiny_tokenizer("3+5=").input_ids
    assert (tmp_path / "generation_config.json").is_file()


def test_tied_embeddings_are_saved_once(tiny_model, tiny_tokenizer, causal_model, tmp_path):
    save_hf(tiny_model, named_tensors(tiny_model), tiny_tokenizer, tmp_path)
    assert "model.embed_tokens.weight" in names(tmp_path) and "lm_head.weight" not in names(tmp_path)
    save_hf(causal_model("llama"), named_tensors(causal_model("llama")), tiny_tokenizer, tmp_path)
    assert {"model.embed_tokens.weight", "lm_head.weight"} <= names(tmp_path)


def test_an_export_replaces_the_one_before_and_leaves_other_files(tiny_model, tiny_tokenizer, tmp_path):
    (tmp_path / "summary.json").write_text("kept")
    for model in (tiny_model, changed(tiny_model)):
        save_hf(model, named_tensors(model), tiny_tokenizer, tmp_path)
    opened = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert torch.equal(opened.model.norm.weight, tiny_model.model.norm.weight + 0.01)
    assert (tmp_path / "summary.json").read_text() == "kept"
    assert not [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")]


@pytest.mark.parametrize("place", ["parameters", "tokenizer", "moving"])
def test_an_export_that_fails_leaves_no_config_and_the_next_one_works(
    tiny_model, tiny_tokenizer, tmp_path, monkeypatch, place
):
    def fail(*args, **kwargs):
        raise OSError("no space left on device")

    def parameters():
        yield from list(named_tensors(tiny_model))[:3]
        fail()

    def move(source, target, real=os.replace):
        return fail() if target.suffix == ".safetensors" else real(source, target)

    with monkeypatch.context() as patch:
        if place == "tokenizer":
            patch.setattr(type(tiny_tokenizer), "save_pretrained", fail)
        if place == "moving":
            patch.setattr(os, "replace", move)
        params = parameters() if place == "parameters" else named_tensors(tiny_model)
        with pytest.raises(OSError, match="no space"):
            save_hf(tiny_model, params, tiny_tokenizer, tmp_path)
    assert not (tmp_path / "config.json").exists()
    save_hf(tiny_model, named_tensors(tiny_model), tiny_tokenizer, tmp_path)
    AutoModelForCausalLM.from_pretrained(tmp_path)
