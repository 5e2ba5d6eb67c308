"""`--meta_init` from the command line: the run is the one without it, with policy, critic and reference."""

from __future__ import annotations

import pytest
from runs import rows, train, weights
from vision_models import save_questions, save_tiny

ADAPTER = "adapter_model.safetensors"


@pytest.mark.parametrize("strategy", ("--fsdp", "--fsdp --bf16", "--zero_stage 3 --bf16"))
def test_a_run_is_the_same_to_the_bit(here, strategy):
    flags = f"{strategy} --advantage_estimator gae --init_kl_coef 0.05 --max_steps 2 --quiet"
    for name, flag in (("whole", ""), ("parts", "--meta_init")):
        assert train(f"{flags} {flag} --save_path {name}").code == 0
    assert rows(here / "whole") == rows(here / "parts")
    for model in ("", "critic"):
        assert weights(here / "whole" / model) == weights(here / "parts" / model)


def test_a_run_with_adapters_is_the_same_to_the_bit(here):
    """Also one that starts from an adapter, and its reference with it."""
    flags = "--fsdp --bf16 --lora_learning_rate 1e-2 --init_kl_coef 0.05 --max_steps 2 --quiet"
    for number, adapter in enumerate(("--lora_rank 4", "--lora_path whole0")):
        for name, flag in (("whole", ""), ("parts", "--meta_init")):
            assert train(f"{flags} {adapter} {flag} --save_path {name}{number}").code == 0
        whole, parts = here / f"whole{number}", here / f"parts{number}"
        assert rows(whole) == rows(parts)
        assert (whole / ADAPTER).read_bytes() == (parts / ADAPTER).read_bytes()


def test_what_is_frozen_is_never_rounded(here):
    """The model's files are float32."""
    flags = "--freeze_prefix model.embed_tokens --init_kl_coef 0 --max_steps 1 --quiet"
    [line] = train(f"{flags} --meta_init --zero_stage 3 --bf16 --save_path run").problems
    assert line.startswith("error: --meta_init: model.embed_tokens.weight is frozen, and --zero_stage 3 would round ")
    assert line.endswith("; use --fsdp, or leave --meta_init out") and not (here / "run").exists()
    for number, strategy in enumerate(("--fsdp --bf16", "--zero_stage 3 --no-bf16")):
        assert train(f"{flags} --meta_init {strategy} --save_path run{number}").code == 0


def test_a_run_of_a_model_that_sees_is_the_same_to_the_bit(here):
    """Whose files name its weights otherwise, and whose tower has buffers of its own."""
    save_tiny("qwen2_vl", here / "sees")
    save_questions(here / "add.jsonl", here, 8)
    flags = "--fsdp --advantage_estimator gae --init_kl_coef 0.05 --max_steps 2 --quiet --prompt_data seen.jsonl"
    flags += " --pretrain sees --prompt_max_len 64 --max_len 72"
    for name, flag in (("whole", ""), ("parts", "--meta_init")):
        assert train(f"{flags} {flag} --save_path {name}").code == 0
    assert rows(here / "whole") == rows(here / "parts")
    for model in ("", "critic"):
        assert weights(here / "whole" / model) == weights(here / "parts" / model)
