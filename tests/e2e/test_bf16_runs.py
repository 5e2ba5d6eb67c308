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


def test_a_run_goes_on_in_another_precision_and_under_another_strategy(here):
    """Master weights exist in each of them; the first metrics after it are close to those of the run that did not."""
    flags, first = "--quiet --save_steps 1 --reward_fn shaped.py:length", "--zero_stage 2 --bf16"
    assert train(f"{flags} {first} --max_steps 2 --save_path whole").code == 0
    for now in ("--zero_stage 2 --no-bf16", "--fsdp --bf16", "--zero_stage 3 --no-bf16"):
        shutil.rmtree(here / "cut", ignore_errors=True)
        assert train(f"{flags} {first} --max_steps 1 --save_path cut").code == 0
        ended = train(f"{flags} {now} --max_steps 2 --save_path cut --load_checkpoint")
        assert ended.code == 0 and "resumed from step 1" in ended.out, ended.err
        second, wanted = rows(here / "cut")[1], rows(here / "whole")[1]
        assert second["policy/grad_norm"] == pytest.approx(wanted["policy/grad_norm"], rel=0.2)


def test_a_run_does_not_depend_on_the_strategy_of_the_one_before_it(here):
    """DeepSpeed's stage 3 puts a linear layer of its own into torch."""
    flags = "--fsdp --bf16 --max_steps 1 --reward_fn shaped.py:length --quiet"
    assert train(f"{flags} --save_path before").code == 0
    assert train("--zero_stage 3 --max_steps 1 --save_path between --quiet").code == 0
    assert train(f"{flags} --save_path after").code == 0
    assert rows(here / "before") == rows(here / "after") and weights(here / "before") == weights(here / "after")
