"""Models whose past is no list of keys and values, in the real program with both strategies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from runs import rows, train

FEW: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
SIZES = {
    "Mamba": {"state_size": 8},
    "RecurrentGemma": {"intermediate_size": 64, "num_attention_heads": 4, "head_dim": 8, "attention_window_size": 8},
}


def make(kind: str) -> None:
    """In the folder `odd`, with the tiny model's tokenizer."""
    tokenizer = transformers.AutoTokenizer.from_pretrained("tiny")
    config = getattr(transformers, f"{kind}Config")(vocab_size=len(tokenizer), **FEW, **SIZES[kind])
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained("odd")
    tokenizer.save_pretrained("odd")


@pytest.mark.parametrize("strategy", ["--fsdp", "--no-fsdp"])
def test_a_model_that_padding_changes_is_sampled_as_it_is_trained(here, strategy):
    """Sums of one and of two digits: `3+5=` and `10+1=` never share a batch."""
    make("Mamba")
    prompts = [line for number in (3, 10) for line in [f'{{"prompt": "{number}+1=", "label": "{number + 1}"}}\n'] * 2]
    Path("ragged.jsonl").write_text("".join(prompts))
    reward = "--reward_fn shaped.py:length"
    ended = train(
        f"{strategy} --pretrain odd --prompt_data ragged.jsonl {reward} --max_steps 2 --save_path run --top_p 1"
    )
    assert ended.code == 0, ended.err
    assert ended.out.count("notice: padding changes what this model computes; only prompts of one length share a") == 1
    gaps = [row["mismatch/gap_max"] for row in rows(here / "run")]
    assert len(gaps) == 2 and max(gaps) < 1e-4
    assert max(row["policy/grad_norm"] for row in rows(here / "run")) > 0


@pytest.mark.parametrize("strategy", ["--fsdp", "--no-fsdp"])
def test_a_model_that_would_be_sampled_without_its_past_is_refused_before_anything_is_written(here, strategy):
    make("RecurrentGemma")
    ended = train(f"{strategy} --pretrain odd --max_steps 1 --save_path run")
    assert ended.code == 2 and not Path("run").exists()
    assert len(ended.problems) == 1 and "--pretrain odd: the local engine cannot sample" in ended.problems[0]
