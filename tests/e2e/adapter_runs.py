"""Runs of adapters, whatever they are added to: one in a piece, in whole/, and one that was resumed, in cut/."""

from __future__ import annotations

import torch
from peft import PeftModel
from runs import rows
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

LORA = "--lora_rank 4 --lora_learning_rate 1e-2 --lr_scheduler constant --lr_warmup_steps 0 --quiet"
IDS = torch.tensor([[11, 14, 5, 15, 12, 2]])


def adapter(path) -> bytes:
    return (path / "adapter_model.safetensors").read_bytes()


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS, use_cache=False).logits


def check_resumed(here, base):
    """Both come to the same adapter; checkpoints hold nothing else; on `base` it is the model that was merged, and not
    the one at the start. Returns that model's logits."""
    assert rows(here / "whole")[-1] == rows(here / "cut")[-1] and adapter(here / "whole") == adapter(here / "cut")
    state = load_file(here / "cut/checkpoints/step_000002/policy/rank_00000.safetensors")
    assert state and all(".lora_" in name for name in state)
    start, merged = logits(base), AutoModelForCausalLM.from_pretrained(here / "whole/merged")
    opened = logits(PeftModel.from_pretrained(base, here / "whole"))
    assert torch.allclose(opened, logits(merged), atol=1e-5) and not torch.allclose(opened, start, atol=1e-2)
    return opened
