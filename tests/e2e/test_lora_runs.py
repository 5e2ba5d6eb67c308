"""`--lora_rank` from the command line: what is exported, what a checkpoint holds, how a resumed run goes on."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch
from adapter_runs import LORA, adapter, check_resumed, logits
from runs import files, rows, train
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

OTHER = (
    "error: --{}: the checkpoint {}/checkpoints/step_000001 holds adapters alone, of other weights than are there now; "
    "bring those back, or start anew with another --save_path"
)


@pytest.mark.parametrize("strategy", ("--fsdp --bf16", "--zero_stage 3 --bf16"))
def test_a_resumed_run_exports_the_same_adapter(here, strategy):
    """To the bit; the base is in no checkpoint."""
    flags = f"{LORA} {strategy} --enable_ema --ema_beta 0.5"
    assert train(f"{flags} --max_steps 3 --save_path whole --lora_merge").code == 0
    assert train(f"{flags} --max_steps 2 --save_steps 1 --save_hf_ckpt --save_path cut").code == 0
    assert train(f"{flags} --max_steps 3 --load_checkpoint --save_path cut").code == 0
    opened = check_resumed(here, AutoModelForCausalLM.from_pretrained(here / "tiny"))
    assert adapter(here / "whole/ema") == adapter(here / "cut/ema")
    assert adapter(here / "cut/checkpoints/step_000002/hf") != adapter(here / "cut")
    averaged = AutoModelForCausalLM.from_pretrained(here / "whole/ema/merged")
    assert not torch.allclose(logits(averaged), opened, atol=1e-3)
    assert files(here / "whole/merged") == files(here / "tiny") and not (here / "cut/merged").exists()


def test_an_adapter_that_was_exported_is_started_from(here):
    """Its first step samples what it would have sampled next, and the reference is where it starts."""
    assert train(f"{LORA} --fsdp --max_steps 1 --save_path first").code == 0
    more = "--lora_learning_rate 1e-2 --init_kl_coef 0.1 --quiet --fsdp"
    assert train(f"{more} --lora_path first --max_steps 2 --save_path second").code == 0
    start, later = (row["kl/ref"] for row in rows(here / "second"))
    assert start == 0 and later > 1e-6
    base = json.loads((here / "second/adapter_config.json").read_text())["base_model_name_or_path"]
    assert base == str(here / "tiny")
    assert adapter(here / "first") != adapter(here / "second")


def retrained(path, name: str) -> None:
    """One number more in the middle of the files' `name`."""
    tensors = load_file(path)
    tensors[name].view(-1)[-1] += 1
    save_file(tensors, path, metadata={"format": "pt"})


def test_a_checkpoint_is_of_the_weights_and_the_adapter_that_it_was_made_with(here):
    """An adapter is another policy with another base, or another scale. A whole model is itself, and it is told."""
    shutil.copytree((here / "tiny").resolve(), here / "base")
    runs = {
        name: f"--pretrain base --fsdp --quiet --save_steps 1 --save_path {name}" for name in ("new", "begun", "whole")
    }
    runs["new"] += " --lora_rank 2"
    assert train(f"{runs['new']} --max_steps 1").code == 0
    shutil.copytree(here / "new", here / "given", ignore=shutil.ignore_patterns("checkpoints", "logs"))
    runs["begun"] += " --lora_path given"
    assert [train(f"{runs[name]} --max_steps 1").code for name in ("begun", "whole")] == [0, 0]
    settings = here / "given/adapter_config.json"
    settings.write_text(settings.read_text().replace('"lora_alpha": 16', '"lora_alpha": 32'))
    again = "--max_steps 2 --load_checkpoint"
    ended = train(f"{runs['begun']} {again}")
    assert ended.code == 2 and ended.problems == [OTHER.format("lora_path", "begun")]
    retrained(here / "base/model.safetensors", "model.layers.1.self_attn.k_proj.weight")
    ended = train(f"{runs['new']} {again}")
    assert ended.code == 2 and ended.problems == [OTHER.format("pretrain", "new")]
    ended = train(f"{runs['whole']} {again}")
    assert ended.code == 0
    assert re.search("warning: changed since that checkpoint: hash of what --pretrain holds was .{12}, is ", ended.out)


@pytest.mark.parametrize(
    "made, changed, line",
    [
        ("--lora_rank 4", "--lora_rank 8", "--lora_rank 8: the checkpoint .* was made with 4"),
        ("--lora_rank 4", "--lora_rank 4 --lora_alpha 8", "--lora_alpha 8.0: the checkpoint .* was made with 16.0"),
        ("--lora_rank 4", "", "--lora_rank 0: the checkpoint .* was made with 4"),
        ("", "--lora_rank 4", "--lora_rank 4: the checkpoint .* was made with 0"),
    ],
)
def test_a_checkpoint_of_other_adapters_is_refused(here, monkeypatch, made, changed, line):
    """Before any data are read."""
    assert train(f"{made} --fsdp --max_steps 1 --save_steps 1 --quiet --save_path run").code == 0
    monkeypatch.setattr("lightrft.preflight.load_prompts", lambda *_, **__: pytest.fail("data were read"))
    ended = train(f"{changed} --fsdp --max_steps 2 --load_checkpoint --quiet --save_path run")
    assert ended.code == 2
    (problem,) = ended.problems
    assert re.search(line, problem), problem


@pytest.mark.parametrize(
    "flags, line",
    [
        (
            "--lora_rank 4 --target_modules foo",
            "--target_modules foo: no linear layer's name ends so; those that can have",
        ),
        ("--lora_path given", "--lora_path given: its adapter_model.safetensors cannot be read"),
        ("--freeze_prefix foo", "--freeze_prefix foo: no parameter's name begins so"),
    ],
)
def test_what_the_model_has_not_is_told_before_any_data_are_read(here, monkeypatch, flags, line):
    monkeypatch.setattr("lightrft.preflight.load_prompts", lambda *_, **__: pytest.fail("data were read"))
    (here / "given").mkdir()
    settings = {"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"]}
    (here / "given/adapter_config.json").write_text(json.dumps(settings))
    (here / "given/adapter_model.safetensors").write_text("no safetensors")
    ended = train(f"{flags} --fsdp --save_path run")
    assert ended.code == 2 and ended.problems[0].startswith(f"error: {line}") and not (here / "run").exists(), ended.err
