"""Whole runs in bfloat16 under each strategy, offloaded ones too: resumed to the same bits, exported exactly."""

from __future__ import annotations

import shutil

import pytest
from runs import rows, train, weights
from safetensors.torch import load_file

STRATEGIES = ("--zero_stage 2", "--zero_stage 3", "--fsdp", "--fsdp --fsdp_cpu_offload")
FLAGS = "--bf16 --quiet --reward_fn shaped.py:length --init_kl_coef 0.01 --save_steps 1 --train_batch_size 8"


def moved(here, name: str) -> float:
    given, found = load_file(here / "tiny" / "model.safetensors"), load_file(here / name / "model.safetensors")
    assert {n: t.dtype for n, t in found.items()} == {n: t.dtype for n, t in given.items()}
    return max(float((found[n] - given[n]).abs().max()) for n in given)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_resumed_is_uninterrupted_and_what_is_exported_is_what_was_trained(here, strategy):
    flags = f"{FLAGS} {strategy}"
    assert train(f"{flags} --save_path whole --max_steps 3").code == 0
    assert train(f"{flags} --save_path cut --max_steps 3 --save_interval 0").code == 0
    for step in (2, 3):
        shutil.rmtree(here / f"cut/checkpoints/step_{step:06d}")
    resumed = train(f"{flags} --save_path cut --max_steps 3 --load_checkpoint")
    assert resumed.code == 0 and "resumed from step 1" in resumed.out, resumed.err
    said = [line.split(maxsplit=1)[0] for line in resumed.out.splitlines()]
    assert set(said) <= {"notice:", "warning:", "resumed"}, "no library prints"
    assert weights(here / "cut") == weights(here / "whole") and rows(here / "cut") == rows(here / "whole")
    assert 1e-3 < moved(here, "whole") < 1e-1
    assert train(f"{flags} --save_path still --max_steps 1 --actor_learning_rate 1e-7").code == 0
    assert 0 < moved(here, "still") < 1e-6, "far below a bfloat16 unit: nothing was rounded on the way"


def test_a_checkpoint_of_another_precision_is_refused(here):
    flags = "--quiet --save_steps 1 --eval_data eval.jsonl"
    for was, now in (("--bf16", "--no-bf16"), ("--no-bf16", "--bf16")):
        folder = f"--save_path {was.strip('-')}"
        assert train(f"{flags} --max_steps 1 {folder} {was}").code == 0
        ended = train(f"{flags} --max_steps 2 {folder} {now} --load_checkpoint")
        assert ended.code == 2
        (line,) = ended.problems
        assert line.startswith(f"error: {now}: the checkpoint ")
        assert line.endswith(f" was made with {was}; go on with that, or start anew")
