"""Training with vLLM or SGLang, each in its environment: what it samples is what the trainer scores, on any ranks."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from children import environment
from test_engines import ROOT, python_of
from vision_models import save_questions, save_tiny

FLAGS = """--pretrain {tiny}/model --prompt_data {tiny}/train.jsonl --eval_data {tiny}/eval.jsonl
 --reward_fn last_number --prompt_max_len 16 --max_len 24 --rollout_batch_size 4 --n_samples_per_prompt 4
 --train_batch_size 16 --micro_train_batch_size 8 --actor_learning_rate 2e-4 --temperature 0.8 --max_steps 3
 --eval_steps 2 --save_steps 2 --save_path out --plot_every 0"""


def trained(
    folder: Path, tiny: Path, ranks: int = 1, flags: str = "", program: str = "train.py", kind: str = "vllm"
) -> tuple[list[dict], str]:
    """(metrics of each step, what it said). On standard error one process says nothing."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"] if ranks > 1 else []
    asked = f"{FLAGS.format(tiny=tiny)} --engine_type {kind} {flags}"
    command = [python_of(kind), *torchrun, ROOT / program, *asked.split()]
    folder.mkdir()
    done = subprocess.run(
        ["timeout", "-k", "10", "400", *map(str, command)],
        cwd=folder,
        env=environment(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-6000:]
    assert ranks > 1 or done.stderr == ""
    return [json.loads(line) for line in (folder / "out/logs/metrics.jsonl").read_text().splitlines()], said


def test_what_vllm_samples_is_what_the_trainer_scores(tiny_folder, tmp_path):
    """top_p is the documented default, .9: it raises nothing. Evaluations and checkpoints come between the steps."""
    steps, said = trained(tmp_path / "run", tiny_folder)
    assert "engine vllm (asked for), its sleep simulated (no GPU)" in said
    assert [step["step"] for step in steps] == [1, 2, 3]
    for step in steps:
        assert step["mismatch/gap_max"] < 1e-4 and step["mismatch/ess"] == pytest.approx(1, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vllm", "sglang"])
@pytest.mark.parametrize("flags", ["--zero_stage 2", "--fsdp --bf16"])
def test_adapters_are_in_what_an_engine_samples_from(tiny_folder, tmp_path, kind, flags):
    """Merged, from the first step that has some on; in bfloat16 what is merged is rounded otherwise."""
    lora = "--lora_rank 4 --lora_learning_rate 1e-2 --lr_warmup_steps 0 --init_kl_coef 0.01 --on_logprob_gap error"
    steps, _ = trained(tmp_path / "run", tiny_folder, flags=f"{lora} {flags}", kind=kind)
    bound = 0.1 if "bf16" in flags else 1e-4
    assert len(steps) == 3 and max(step["mismatch/gap_max"] for step in steps) < bound
    assert steps[0]["kl/ref"] == 0 and steps[-1]["kl/ref"] > 1e-3


@pytest.fixture
def seeing(tiny_folder, tmp_path) -> str:
    """Flags of a tiny model that sees, and of rows of which every second has an image."""
    save_tiny("qwen2_5_vl", tmp_path / "model", scale=4)
    save_questions(tiny_folder / "train.jsonl", tmp_path, 16)
    lengths = f"--prompt_max_len 64 --max_len 72 --eval_data {tmp_path}/seen.jsonl"
    return f"--pretrain {tmp_path}/model --prompt_data {tmp_path}/half_seen.jsonl --mixed_mm_data {lengths}"


@pytest.mark.parametrize("kind", ["vllm", pytest.param("sglang", marks=pytest.mark.slow)])
def test_what_an_engine_sees_is_what_the_trainer_scores(tiny_folder, seeing, tmp_path, kind):
    """The tower learns too, and fast: images must be seen by the weights of the step."""
    flags = f"{seeing} --actor_learning_rate 1e-2 --on_logprob_gap error"
    steps, _ = trained(tmp_path / "run", tiny_folder, flags=flags, program="train_vl.py", kind=kind)
    for step in steps:
        assert step["mismatch/gap_max"] < 1e-4 and step["mismatch/ess"] == pytest.approx(1, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("flags", ["--engine_tp_size 1 --zero_stage 3", "--engine_tp_size 2 --fsdp"])
def test_two_ranks_take_the_steps_of_one(tiny_folder, tmp_path, flags):
    alone, _ = trained(tmp_path / "alone", tiny_folder)
    together, _ = trained(tmp_path / "together", tiny_folder, 2, flags)
    for one, two in zip(alone, together, strict=True):
        for name in ("reward/mean", "rollout/length_mean", "loss/policy", "policy/grad_norm"):
            assert two[name] == pytest.approx(one[name], abs=1e-4), name
        assert two["mismatch/gap_max"] < 1e-4
