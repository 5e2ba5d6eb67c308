"""`--enable_ema` from the command line: exported beside the model, kept by a resumed run."""

from __future__ import annotations

import pytest
import torch
from runs import files, train, weights
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

EMA = "--enable_ema --ema_beta 0.5 --lr_scheduler constant --lr_warmup_steps 0 --quiet"


@pytest.mark.parametrize("strategy", ("--fsdp", "--zero_stage 2 --bf16"))
def test_the_average_is_a_model_that_a_resumed_run_goes_on_with(here, strategy):
    assert train(f"{EMA} {strategy} --max_steps 3 --save_path whole").code == 0
    flags = f"{EMA} {strategy} --save_path cut"
    assert train(f"{flags} --max_steps 2 --save_steps 1 --save_hf_ckpt").code == 0
    assert train(f"{flags} --max_steps 3 --load_checkpoint").code == 0
    for model in ("", "ema"):
        assert weights(here / "whole" / model) == weights(here / "cut" / model)
    assert files(here / "whole" / "ema") == files(here / "tiny")
    averaged, last = (load_file(here / "whole" / model / "model.safetensors") for model in ("ema", ""))
    given = AutoModelForCausalLM.from_pretrained(here / "whole/ema").state_dict()
    assert all(torch.equal(given[name], value) for name, value in averaged.items())
    assert any(not torch.equal(averaged[name], value) for name, value in last.items())
    assert weights(here / "cut/checkpoints/step_000002/hf/ema") != weights(here / "cut/checkpoints/step_000002/hf")


def test_a_run_without_it_exports_none(here):
    assert train("--fsdp --max_steps 1 --quiet --save_path run").code == 0
    assert not (here / "run/ema").exists()
