"""What `--pretrain` names: a folder, a name of the hub, or nothing; said at once and in one line."""

from __future__ import annotations

import socket
import time

import pytest
from huggingface_hub import constants
from transformers import PreTrainedTokenizerFast

from lightrft import hub
from lightrft.args.groups.model import ModelArgs
from lightrft.errors import Refused
from lightrft.models.adapter_files import adapter_files, given_config
from lightrft.models.critic import check_critic
from lightrft.models.source import check_place, find_file
from lightrft.models.tokenizer import load_tokenizer


def refusal(name, call=check_place, **more):
    with pytest.raises(Refused) as caught:
        call(ModelArgs(pretrain=str(name), **more))
    message = str(caught.value)
    assert "\n" not in message and message.startswith(f"--pretrain {name}")
    return message


def in_the_cache(cache, name):
    """The folder in which the hub's cache keeps the files of that name."""
    place = cache / f"models--{name.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("abc")
    (place / "snapshots" / "abc").mkdir(parents=True)
    return place / "snapshots" / "abc"


@pytest.mark.parametrize("name", ["./nothing", "/no/such/folder", "~/nothing", "a/b/c"])
def test_a_path_that_does_not_exist_is_refused(name):
    for call in (check_place, load_tokenizer):
        assert "no such model folder; " in refusal(name, call), "and not that it is no hub name"


@pytest.mark.parametrize("name", ["x" * 300, "/tmp/" + "x" * 300, "~/" + "x" * 300])
def test_a_name_too_long_for_any_file_is_refused_in_one_line(name):
    for call in (check_place, load_tokenizer):
        with pytest.raises(Refused, match=r"^--pretrain: a path is too long: \S{60}\.\.\.; give a shorter one$"):
            call(ModelArgs(pretrain=name))


def test_a_home_of_nobody_is_no_folder():
    assert "no such model folder" in refusal("~nobody_of_this_name/model")


def test_a_typo_below_a_folder_of_here_names_what_is_there(tiny_folder, monkeypatch):
    monkeypatch.chdir(tiny_folder.parent)
    (tiny_folder / "Qwen3-0.6B").mkdir(exist_ok=True)
    here = tiny_folder.name
    assert refusal(f"{here}/modle").endswith(f"no such model folder; is it {here}/model?")
    assert refusal(f"{here}/qwen3-0.6b").endswith(f"; is it {here}/Qwen3-0.6B?")
    assert refusal(f"{here}/else").endswith("no such model folder; give a folder with config.json or a hub name")
    monkeypatch.chdir(tiny_folder)
    assert refusal("modell").endswith("no such model folder; is it model? One of the hub goes by owner/name")
    (tiny_folder / "Qwen3-0.6B").rmdir()


@pytest.mark.parametrize("offline", [True, False])
def test_a_bare_name_near_a_model_of_here_is_refused_before_the_hub_is_asked(tmp_path, monkeypatch, offline):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(hub, "_no_answer", lambda endpoint: "cannot be reached; give a folder, or mend the connection")
    for folder in ("tiny", "gpt2-my", "teeny"):
        (tmp_path / folder).mkdir()
    for folder in ("tiny", "gpt2-my"):
        (tmp_path / folder / "config.json").write_text("{}")
    for name in ("tyni", "Tiny", "tny", "tinyy"):
        assert refusal(name).endswith("no such model folder; is it tiny? One of the hub goes by owner/name")
    assert "no such folder here; is it gpt2-my?, and as a hub name" in refusal("gpt2"), "it may be the hub's"
    assert "no such folder here; is it tiny?, and as a hub name" in refusal("nobody/tiny")
    assert "no such folder here, and as a hub name" in refusal("nobody/teeni"), "teeny is no model"
    (in_the_cache(tmp_path / "hub", "tinyy") / "config.json").write_text("{}")
    check_place(ModelArgs(pretrain="tinyy", cache_dir=str(tmp_path / "hub")))


@pytest.mark.parametrize("name", ["nobody/nothing", "nothing"])
def test_a_hub_name_offline_says_why_it_is_not_fetched(name):
    assert "HF_HUB_OFFLINE is set, which allows only what is in the cache" in refusal(name)
    assert "with --cache_dir elsewhere" in refusal(name, cache_dir="elsewhere")


@pytest.mark.parametrize("name", ["a name", "org/na me", "org/-x", "x" * 100])
def test_what_no_hub_takes_as_a_name_is_not_asked_for(name):
    assert refusal(name).endswith("no such model folder, and no hub name")


def test_a_hub_that_does_not_answer_is_refused_within_seconds(monkeypatch, tmp_path):
    """A port at which nobody listens; and one that takes the call and stays silent."""
    silent = socket.create_server(("127.0.0.1", 0))
    closed = socket.create_server(("127.0.0.1", 0))
    ports = [server.getsockname()[1] for server in (closed, silent)]
    closed.close()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "PATIENCE_S", 0.2)
    for port in ports:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
        start = time.monotonic()
        message = refusal("nobody/nothing")
        assert time.monotonic() - start < 20  # the library itself tries for most of a minute
        assert f"127.0.0.1:{port} cannot be reached (" in message and "give a folder" in message
    snapshot = in_the_cache(tmp_path, "org/name")
    (snapshot / "config.json").write_text("{}")
    args = ModelArgs(pretrain="org/name", cache_dir=str(tmp_path))
    check_place(args)  # what is in the cache needs no hub, and nobody waits for one
    find_file(args, "config.json")  # imports transformers
    start = time.monotonic()
    assert find_file(args, "config.json") == snapshot / "config.json" and find_file(args, "other") is None
    assert time.monotonic() - start < 20
    silent.close()


@pytest.mark.parametrize(
    ("files", "what"),
    [
        ([], "it has no config.json; give a Hugging Face model folder"),
        (["x.gguf"], "it has no config.json; it holds GGUF weights"),
        (["params.json", "consolidated.00.pth"], "it is in its maker's own format"),
        (["model_index.json"], "it is a pipeline of diffusers"),
        (
            ["adapter_config.json"],
            "it is an adapter, not a model; use --pretrain MODEL --lora_path {folder}, where MODEL is the model that "
            "it was trained on",
        ),
        (["adapter_config.json", "config.json"], "it is an adapter, not a model; use --pretrain MODEL --lora_path"),
        (["hf/config.json"], "it has no config.json; is it {folder}/hf?"),
    ],
)
def test_a_folder_that_is_no_model_says_what_it_is(tmp_path, files, what):
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("{}")
    assert what.format(folder=tmp_path) in refusal(tmp_path)
    assert what.format(folder=tmp_path) in refusal(tmp_path, load_tokenizer)


def test_an_adapter_is_told_with_the_model_that_it_is_of(tmp_path):
    """A policy can start from both; a critic, which has no adapters, from one model of both."""
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "owner/base"}')
    told = f"--pretrain {tmp_path}: it is an adapter of owner/base, not a model; "
    assert refusal(tmp_path) == f"{told}use --pretrain owner/base --lora_path {tmp_path}"
    snapshot = in_the_cache(tmp_path, "own/adapter")
    (snapshot / "adapter_config.json").write_text('{"base_model_name_or_path": "owner/base"}')
    line = "it is an adapter of owner/base, not a model; use --pretrain owner/base --lora_path own/adapter"
    assert refusal("own/adapter", cache_dir=str(tmp_path)) == f"--pretrain own/adapter: {line}"
    args = ModelArgs(pretrain="owner/base", critic_pretrain=str(tmp_path))
    with pytest.raises(Refused) as caught:
        check_critic(args, PreTrainedTokenizerFast)
    told = told.replace("--pretrain", "--critic_pretrain")
    assert str(caught.value) == f"{told}merge the two (peft: merge_and_unload) and give that"


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("nothing/at/all", "no such adapter folder; give a folder with adapter_config.json or a hub name"),
        ("./adapte", "no such adapter folder; is it adapter?"),
        ("adapte", "no such adapter folder; is it adapter? One of the hub goes by owner/name"),
        ("nobody/nothing", "no such folder here, and as a hub name it cannot be loaded: HF_HUB_OFFLINE is set, "),
        ("file", "no such adapter folder, it is a file; give a folder with adapter_config.json"),
        ("model", "it has no adapter_config.json: it is a model, which --pretrain takes; give the folder of a PEFT"),
        ("step_000001", "it has no adapter_config.json; is it step_000001/hf?"),
        ("step_000001/hf", "it has no adapter_model.safetensors; give the folder of a PEFT adapter"),
        ("empty", "it has no adapter_config.json; give the folder of a PEFT adapter"),
    ],
)
def test_what_is_no_adapter_is_said(tmp_path, monkeypatch, name, what):
    monkeypatch.chdir(tmp_path)
    for file in ("adapter/adapter_config.json", "model/config.json", "step_000001/hf/adapter_config.json", "file"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text('{"peft_type": "LORA"}')
    (tmp_path / "empty").mkdir()
    args = ModelArgs(pretrain="none", lora_path=name)
    with pytest.raises(Refused) as caught:
        given_config(args)
        adapter_files(args)
    assert str(caught.value).startswith(f"--lora_path {name}: {what}"), caught.value


def test_a_file_is_no_model(tmp_path):
    (tmp_path / "model.bin").write_text("")
    assert "no such model folder, it is a file" in refusal(tmp_path / "model.bin")


def test_a_home_folder_is_written_out(tiny_folder, monkeypatch):
    monkeypatch.setenv("HOME", str(tiny_folder))
    assert load_tokenizer(ModelArgs(pretrain="~/model")).eos_token_id == 2
