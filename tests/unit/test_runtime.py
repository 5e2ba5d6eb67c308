"""What a run chooses for its hardware, in the words of the plan and of run.json."""

from __future__ import annotations

import pytest
import torch

from lightrft.args import Args, parse
from lightrft.engine_choice import EngineChoice
from lightrft.errors import Refused
from lightrft.hardware import Hardware, choose_precision, hardware
from lightrft.runtime import runtime

BASE = "--pretrain tiny --prompt_data a.jsonl --reward_fn exact --save_path out "
BASE += "--rollout_batch_size 4 --train_batch_size 16"


def args(text: str = "") -> Args:
    return parse(f"{BASE} {text}".split())


def test_assumed_gpus_decide_device_and_precision():
    assumed = args("--assume_gpus 8x80GB")
    assert hardware(assumed) == Hardware(8, "8 x 80 GB GPU (assumed)", True, 80.0)
    assert runtime(assumed) == {
        "processes": 8,
        "strategy": "deepspeed ZeRO-2",
        "device": "8 x 80 GB GPU (assumed)",
        "precision": "bf16 (the GPU has bf16)",
        "engine": "vllm (auto)",
        "training": "with a row for each sample, prompts shared where that is cheaper",
    }
    held = args("--assume_gpus 8x80GB --fsdp --fsdp_reshard step")
    assert runtime(held)["strategy"] == "FSDP2, whole for each step"
    assert runtime(args("--assume_gpus 1x80GB --fsdp --fsdp_reshard step"))["strategy"] == "FSDP2"
    assert choose_precision(args("--assume_gpus 1x24GB --fp16"))[0].compute == "fp16"
    assert choose_precision(args("--assume_gpus 1x24GB --no-bf16"))[0].compute == "fp32"


@pytest.mark.parametrize(
    ("flags", "engine"),
    [
        ("--engine_dtype bf16", "vllm (auto)"),  # that of the compute
        ("--engine_dtype fp32 --engine_tp_size 2", "vllm (auto), in fp32, one for 2 processes"),
        ("--engine_type local --no-bf16 --engine_dtype bf16", "local (asked for), in bf16"),
    ],
)
def test_the_engine_as_it_is_set(flags: str, engine: str):
    assert runtime(args(f"--assume_gpus 8x80GB {flags}"))["engine"] == engine


@pytest.mark.parametrize(
    ("kind", "flags", "told"),
    [
        ("vllm", "", "vllm (auto), its sleep simulated (no GPU)"),
        ("vllm", "--disable_engine_sleep", "vllm (auto)"),
        ("local", "", "local (auto)"),
    ],
)
def test_a_sleep_that_gives_nothing_back_is_told_in_the_plan(monkeypatch, kind: str, flags: str, told: str):
    monkeypatch.setattr("lightrft.runtime.choose_engine", lambda _, videos: EngineChoice(kind, "auto"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert runtime(args(flags))["engine"] == told


def test_a_machine_without_a_gpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert hardware(args()) == Hardware(1, "cpu", False)
    assert runtime(args())["strategy"] == "deepspeed ZeRO-2 (on one process plain torch)"
    assert runtime(args("--bf16"))["strategy"] == "deepspeed ZeRO-1 (as good as 2 on one process)"
    assert runtime(args("--zero_stage 3"))["strategy"] == "deepspeed ZeRO-3"
    assert choose_precision(args())[0].compute == "fp32"
    with pytest.raises(Refused, match="--fp16 needs a GPU"):
        choose_precision(args("--fp16"))
    with pytest.raises(Refused, match="--use_mp_opt keeps bf16 shards, .*; add --bf16"):
        choose_precision(args("--fsdp --use_mp_opt"))
    assert runtime(args("--fsdp --use_mp_opt --bf16"))["strategy"] == "FSDP2, bf16 shards"


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("--micro_train_batch_size 4", "with a row for each sample, prompts shared where that is cheaper"),
        ("--micro_train_batch_size 4 --no-share_prompts", "with a row for each sample"),
        (
            "--packing_samples --max_tokens_per_micro_batch 5000 --fused_linear_logprob --chunk_size 64",
            "with one row for all samples of a micro-batch, prompts shared where that is cheaper, "
            "logits of 64 tokens at most at a time",
        ),
        ("--init_kl_coef 0", "with a row for each sample"),
        ("--init_kl_coef 0 --gradient_checkpointing", "with a row for each sample, layers computed twice"),
        (
            "--init_kl_coef 0 --gradient_checkpointing --recompute_granularity selective --activation_offload",
            "with a row for each sample, layers computed twice but for attention, their inputs on the CPU",
        ),
    ],
)
def test_what_training_passes_hold(flags: str, told: str):
    assert runtime(args(flags))["training"] == told
