"""`--lora_rank` from the command line: what is exported, what a checkpoint holds, how a resumed run goes on."""

from __future__ import annotations

import json
import re

import pytest
import torch
from peft import PeftModel
from runs import files, rows, train
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

LORA = "--lora_rank 4 --lora_learning_rate 1e-2 --lr_scheduler constant --lr_warmup_steps 0 --quiet"
IDS = torch.tensor([[11, 14, 5, 15, 12, 2]])


def adapter(path) -> bytes:
    return (path / "adapter_model.safetensors").read_bytes()


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS, use_cache=False).logits


@pytest.mark.parametrize("strategy", ("--fsdp", "--zero_stage 3 --bf16"))
def test_a_resumed_run_exports_the_same_adapter(here, strategy):
    """To the bit; the base is in no checkpoint."""
    flags = f"{LORA} {strategy} --enable_ema --ema_beta 0.5"
    assert train(f"{flags} --max_steps 3 --save_path whole --lora_merge").code == 0
    assert train(f"{flags} --max_steps 2 --save_steps 1 --save_hf_ckpt --save_path cut").code == 0
    assert train(f"{flags} --max_steps 3 --load_checkpoint --save_path cut").code == 0
    assert rows(here / "whole")[-1] == rows(here / "cut")[-1]
    for model in (".", "ema"):
        assert adapter(here / "whole" / model) == adapter(here / "cut" / model)
    state = load_file(here / "cut/checkpoints/step_000002/policy/rank_00000.safetensors")
    assert state and all(".lora_" in name for name in state)
    assert adapter(here / "cut/checkpoints/step_000002/hf") != adapter(here / "cut")
    base, merged = (AutoModelForCausalLM.from_pretrained(here / path) for path in ("tiny", "whole/merged"))
    start = logits(base)
    opened = logits(PeftModel.from_pretrained(base, here / "whole"))
    assert torch.allclose(opened, logits(merged), atol=1e-5) and not torch.allclose(opened, start, atol=1e-2)
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


@pytest.mark.parametrize(
    "made, changed, line",
    [
        ("--lora_rank 4", "--lora_rank 8", "--lora_rank 8: the checkpoint .* was made with 4"),
        ("--lora_rank 4", "--lora_rank 4 --lora_alpha 8", "--lora_alpha 8.0: the checkpoint .* was made with 16.0"),
        ("--lora_rank 4", "", "--lora_rank 0: the checkpoint .* was made with 4"),
        ("", "--lora_rank 4", "--lora_rank 4: the checkpoint .* was made with 0"),
    ],
)
def test_a_checkpoint_of_other_adapters_is_refused(here, made, changed, line):
    assert train(f"{made} --fsdp --max_steps 1 --save_steps 1 --quiet --save_path run").code == 0
    ended = train(f"{changed} --fsdp --max_steps 2 --load_checkpoint --quiet --save_path run")
    assert ended.code == 2
    (problem,) = ended.problems
    assert re.search(line, problem), problem
