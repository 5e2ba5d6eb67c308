"""What is planned for this machine and for GPUs that are only assumed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lightrft.args import Args, parse
from lightrft.engine_choice import EngineChoice
from lightrft.errors import Refused
from lightrft.hardware import Hardware, choose_precision, hardware
from lightrft.models.load import count_parameters
from lightrft.plan import runtime
from lightrft.recipe import total_steps

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
    }
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
    monkeypatch.setattr("lightrft.plan.choose_engine", lambda _, videos: EngineChoice(kind, "auto"))
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
    told = runtime(args("--fsdp --use_mp_opt --bf16 --gradient_checkpointing"))["strategy"]
    assert told == "FSDP2, bf16 shards, layers computed twice"
    twice = "--fsdp --gradient_checkpointing --recompute_granularity selective --activation_offload"
    told = runtime(args(twice))["strategy"]
    assert told.startswith("FSDP2 (on one process plain torch), layers computed twice but for attention, their inputs ")


def test_steps_of_episodes():
    assert total_steps(args("--num_episodes 2"), 10) == 5
    assert total_steps(args(), 9) == 3
    assert total_steps(args("--max_steps 7 --num_episodes 2"), 10) == 7
    assert total_steps(args("--train_batch_size 32"), 10) == 2
    # of 8 prompts a step one batch of 4 is drawn at most: three batches, and not two, may be needed
    assert total_steps(args("--train_batch_size 32 --dynamic_sampling --max_gen_batches 1"), 10) == 3


def test_parameters_are_counted_from_the_configuration_alone(tiny_folder: Path, tmp_path: Path):
    from transformers import AutoModelForCausalLM

    (tmp_path / "config.json").write_bytes((tiny_folder / "model" / "config.json").read_bytes())
    real = sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(tiny_folder / "model").parameters())
    assert count_parameters(args(f"--pretrain {tmp_path}").model) == real > 300_000
