"""What the user gave comes back with new weights: bytes of files, names and dtypes of tensors, whatever stood there."""

from __future__ import annotations

import copy
import json
import os
import shutil
import weakref

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerFast

from lightrft.args.groups.model import ModelArgs
from lightrft.models.export import save_hf
from lightrft.models.given import INDEX, Given, read_given
from lightrft.models.load import load_model
from lightrft.strategy.base import named_tensors

CPU = torch.device("cpu")


def dtypes(folder):
    """By name, over all files."""
    found = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as weights:
            found |= {name: weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118
    return found


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def weights_of(folder):
    return {name for name in contents(folder) if "safetensors" in name}


def greedy(model, ids):
    return model.generate(torch.tensor([ids]), max_new_tokens=6, do_sample=False, pad_token_id=0)[0].tolist()


def changed(model):
    """As after training: not the weights that the model was loaded with."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)
    return model


def rewrite(folder, change):
    """The weights of a folder with other names or dtypes, as other programs save them."""
    tensors = change(load_file(folder / "model.safetensors"))
    save_file({name: value.clone().contiguous() for name, value in tensors.items()}, folder / "model.safetensors")


@pytest.fixture
def given_folder(causal_model, tiny_folder, tmp_path):
    """kind -> a model's folder with a tokenizer."""

    def make(kind):
        folder = tmp_path / "given"
        causal_model(kind).save_pretrained(folder)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(tiny_folder / "model" / name, folder / name)
        return folder

    return make


def trained(folder, path, **flags):
    """The export of a model that was loaded in float32 and changed; and the model."""
    args = ModelArgs(pretrain=str(folder), **flags)
    model, given = changed(load_model(args, torch.float32, CPU, trains=False)), read_given(args)
    path.mkdir(exist_ok=True)
    save_hf(model, named_tensors(model), given, path)
    return model


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2", "gpt2"])
def test_an_export_opens_as_a_hugging_face_model_that_generates_the_same(given_folder, tmp_path, kind):
    model = trained(given_folder(kind), tmp_path / "out")
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    for name, value in model.state_dict().items():
        assert torch.equal(opened.state_dict()[name], value), name
    assert greedy(opened, [1, 7, 14, 9]) == greedy(model, [1, 7, 14, 9])


CODE = """from transformers import Qwen2Config, Qwen2ForCausalLM
class OwnConfig(Qwen2Config):
    model_type = "own"
class Own(Qwen2ForCausalLM):
    config_class = OwnConfig
"""
ODD_FILES = {
    "config.json": None,  # the one of the model, laid out otherwise
    "generation_config.json": b'{"temperature": 0.6, "do_sample": false, "eos_token_id": [2, 7]}',
    "tokenizer_config.json": b'{"eos_token":"<eos>",  "chat_template": "{{ 1 }}"}',
    "special_tokens_map.json": b'{"eos_token": "<eos>"}',
    "chat_template.jinja": "{{ 'é' }}\r\n\n".encode(),
    "additional_chat_templates/tool_use.jinja": b"tools",
    "additional_chat_templates/rag.jinja": b"documents",
    "preprocessor_config.json": b"{}",
    "tokenizer.model": b"\x00\xff",
    "LICENSE": b"terms",
}
LEFT_BEHIND = ("README.md", "pytorch_model.bin", "model.gguf", "summary.json", "train.py", "trainer_state.json")


def test_all_other_files_come_back_byte_for_byte(given_folder, tmp_path, monkeypatch):
    """Also a generation config that transformers loads and then refuses to save, as its versions to 5.17 do."""
    real = GenerationConfig.save_pretrained

    def strict(self, *args, **more):
        if self.eos_token_id == [2, 7]:
            raise ValueError("GenerationConfig is invalid")
        return real(self, *args, **more)

    monkeypatch.setattr(GenerationConfig, "save_pretrained", strict)
    folder = given_folder("qwen2")
    config = json.loads((folder / "config.json").read_text())
    odd = {**ODD_FILES, "config.json": json.dumps({**config, "my_own": [1, 2.50]}, indent=7).encode()}
    for name, content in {**odd, **dict.fromkeys(LEFT_BEHIND, b"other")}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    trained(folder, tmp_path / "out")
    wanted = {name: content for name, content in contents(folder).items() if name not in LEFT_BEHIND}
    found = contents(tmp_path / "out")
    assert found.pop("model.safetensors") != wanted.pop("model.safetensors")
    assert found == wanted


def test_a_model_with_code_of_its_own_takes_its_code_along(given_folder, tmp_path):
    folder = given_folder("qwen2")
    (folder / "own.py").write_text(CODE)
    config = json.loads((folder / "config.json").read_text())
    own = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.Own"}
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "own", "auto_map": own}))
    trained(folder, tmp_path / "out", trust_remote_code=True)
    assert contents(tmp_path / "out").keys() == contents(folder).keys()
    assert (tmp_path / "out" / "own.py").read_text() == CODE
    AutoModelForCausalLM.from_pretrained(tmp_path / "out", trust_remote_code=True)


def half(tensors):
    return {name: value.to(torch.bfloat16) for name, value in tensors.items()}


def mixed(tensors):
    kinds = [torch.float16, torch.bfloat16, torch.float32]
    return {name: value.to(kinds[number % 3]) for number, (name, value) in enumerate(sorted(tensors.items()))}


def tied_twice(tensors):
    return {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"]}


def without_prefix(tensors):
    return {name.removeprefix("transformer.").removeprefix("model."): value for name, value in tensors.items()}


CHANGES = [("llama", half), ("qwen2", mixed), ("qwen2", tied_twice), ("gpt2", without_prefix), ("gpt2", half)]


@pytest.mark.parametrize(("kind", "change"), CHANGES, ids=lambda value: getattr(value, "__name__", value))
def test_weights_come_back_in_the_names_and_dtypes_that_were_given(given_folder, tmp_path, kind, change):
    folder, out = given_folder(kind), tmp_path / "out"
    rewrite(folder, change)
    trained(folder, out)
    assert dtypes(out) == dtypes(folder)
    before, after = (load_file(path / "model.safetensors") for path in (folder, out))
    for name, value in before.items():
        assert torch.equal(after[name], (value.float() + 0.01).to(value.dtype)), name
    opened = load_model(ModelArgs(pretrain=str(out)), torch.float32, CPU, trains=False)
    assert torch.equal(opened.get_output_embeddings().weight, opened.get_input_embeddings().weight) == (kind != "llama")


def test_experts_come_back_one_by_one(tmp_path, tiny_folder):
    """transformers 5 joins their matrices when it loads them."""
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    sizes = dict(vocab_size=16, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    more = dict(num_key_value_heads=1, head_dim=16, num_experts=2, num_experts_per_tok=1, moe_intermediate_size=16)
    Qwen3MoeForCausalLM(Qwen3MoeConfig(**sizes, **more)).to(torch.bfloat16).save_pretrained(tmp_path / "given")
    names = dtypes(tmp_path / "given")
    assert "model.layers.0.mlp.experts.1.down_proj.weight" in names
    trained(tmp_path / "given", tmp_path / "out")
    assert dtypes(tmp_path / "out") == names


def test_an_export_replaces_the_model_before_and_leaves_other_files(given_folder, tmp_path):
    """One in several files after one in one file and the other way round; folders too; nothing old stays beside."""
    folder, out = given_folder("llama"), tmp_path / "out"
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "a.jinja").write_text("a")
    (folder / "special_tokens_map.json").write_text("{}")
    parts = {"summary.json": "kept", "logs/x.json": "kept", "notes.txt": "kept", "mine.py": "kept"}
    for name, text in parts.items():
        (out / name).parent.mkdir(exist_ok=True, parents=True)
        (out / name).write_text(text)
    first = trained(folder, out)
    (out / "additional_chat_templates" / "old.txt").write_text("old")
    (folder / "additional_chat_templates" / "a.jinja").rename(folder / "additional_chat_templates" / "b.jinja")
    (folder / "special_tokens_map.json").unlink()
    save_in_parts(changed(first), folder, out)
    assert (out / INDEX).is_file() and not (out / "model.safetensors").exists()
    assert sorted(path.name for path in (out / "additional_chat_templates").iterdir()) == ["b.jinja"]
    assert not (out / "special_tokens_map.json").exists()
    opened = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    assert torch.equal(opened.model.norm.weight, changed(first).model.norm.weight)
    trained(folder, out)
    assert weights_of(out) == {"model.safetensors"}
    assert torch.equal(load_file(out / "model.safetensors")["model.norm.weight"], first.model.norm.weight)
    assert all((out / name).read_text() == text for name, text in parts.items())
    assert contents(out).keys() == contents(folder).keys() | parts.keys()


def save_in_parts(model, folder, out):
    given, whole = read_given(ModelArgs(pretrain=str(folder))), model.save_pretrained
    model.save_pretrained = lambda *args, **more: whole(*args, max_shard_size=20_000, **more)
    save_hf(model, named_tensors(model), given, out)


def test_names_as_given_reach_the_index_too(given_folder, tmp_path):
    folder, out = given_folder("gpt2"), tmp_path / "out"
    rewrite(folder, without_prefix)
    out.mkdir()
    save_in_parts(load_model(ModelArgs(pretrain=str(folder)), torch.float32, CPU, trains=False), folder, out)
    assert set(json.loads((out / INDEX).read_text())["weight_map"]) == set(dtypes(folder)) == set(dtypes(out))
    load_model(ModelArgs(pretrain=str(out)), torch.float32, CPU, trains=False)


@pytest.mark.parametrize("umask", [0o027, 0o002])
def test_files_follow_the_umask(given_folder, tmp_path, umask):
    folder = given_folder("qwen2")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "a.jinja").write_text("a")
    before = os.umask(umask)
    try:
        trained(folder, tmp_path / "out")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "out").rglob("*")}
    assert modes.pop("additional_chat_templates") == 0o777 & ~umask
    assert set(modes.values()) == {0o666 & ~umask}


@pytest.mark.parametrize("place", ["parameters", "disk", "moving"])
def test_an_export_that_fails_leaves_the_model_before_or_none(given_folder, tmp_path, monkeypatch, full_disk, place):
    folder, out = given_folder("llama"), tmp_path / "out"
    model = trained(folder, out)
    before, given = contents(out), read_given(ModelArgs(pretrain=str(folder)))

    def parameters():
        yield from list(named_tensors(model))[:3]
        raise OSError("no space left on device")

    def move(source, target, real=os.replace):
        if target.suffix == ".safetensors":
            raise OSError("no space left on device")
        return real(source, target)

    with monkeypatch.context() as patch, full_disk(20_000 if place == "disk" else 1 << 30):
        if place == "moving":
            patch.setattr(os, "replace", move)
        with pytest.raises(OSError, match="no space|File too large"):
            save_hf(model, parameters() if place == "parameters" else named_tensors(model), given, out)
    if place == "moving":
        assert not (out / "config.json").exists(), "half a model is none"
    else:
        assert contents(out) == before
    save_hf(model, named_tensors(model), given, out)
    assert contents(out) == before


def test_what_a_killed_export_left_is_cleared(given_folder, tmp_path):
    (tmp_path / "out" / ".export.tmp").mkdir(parents=True)
    (tmp_path / "out" / ".export.tmp" / "old.json").write_text("old")
    trained(given_folder("llama"), tmp_path / "out")
    assert not any(name.startswith((".", "old")) for name in contents(tmp_path / "out"))


def test_a_model_of_the_hub_comes_back_whole(given_folder, tmp_path):
    folder = given_folder("llama")
    snapshot = tmp_path / "hub" / "models--org--name" / "snapshots" / "abc"
    shutil.copytree(folder, snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    trained("org/name", tmp_path / "out", cache_dir=str(tmp_path / "hub"))
    assert contents(tmp_path / "out").keys() == contents(folder).keys()
    assert (tmp_path / "out" / "config.json").read_bytes() == (folder / "config.json").read_bytes()
    assert PreTrainedTokenizerFast.from_pretrained(tmp_path / "out").eos_token == "<eos>"


def test_nothing_given_is_a_model_all_the_same(tiny_model, tmp_path):
    save_hf(tiny_model, named_tensors(tiny_model), Given(), tmp_path)
    assert set(contents(tmp_path)) == {"config.json", "model.safetensors"}


def test_host_memory_holds_all_weights_once(given_folder, causal_model, tmp_path, monkeypatch):
    """Where they were given under other names, a file is read again: what it was written from is gone by then."""
    folder = given_folder("qwen2")
    rewrite(folder, lambda tensors: {name.removeprefix("model."): value for name, value in tensors.items()})
    given, copies, alive = read_given(ModelArgs(pretrain=str(folder))), [], []

    def params():
        for name, value in named_tensors(causal_model("qwen2")):
            array = value.detach().numpy().copy()
            copies.append(weakref.ref(array))
            yield name, torch.from_numpy(array)

    def load(file):
        alive.append(sum(copy() is not None for copy in copies))
        return load_file(file)

    monkeypatch.setattr("safetensors.torch.load_file", load)
    save_hf(causal_model("qwen2"), params(), given, tmp_path)
    assert alive == [0] and "embed_tokens.weight" in dtypes(tmp_path)
