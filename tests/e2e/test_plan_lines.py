"""What the plan foretells of the disk is there afterwards; what it notices of few prompts and of a small disk."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from runs import train

from lightrft.loop import disk

FROZEN = "--freeze_prefix model.layers"


@pytest.mark.parametrize(
    "strategy", ["--bf16", "--fsdp", "--save_hf_ckpt --advantage_estimator gae", f"--bf16 {FROZEN}", f"--fsdp {FROZEN}"]
)
def test_a_checkpoint_takes_what_was_foretold(here: Path, strategy: str, monkeypatch: pytest.MonkeyPatch):
    seen, real = [], disk.disk_need
    monkeypatch.setattr("lightrft.plan.disk_need", lambda *a, **k: seen.append(real(*a, **k)) or seen[-1])
    ended = train(f"--max_steps 1 --save_steps 1 --save_path out {strategy}")
    assert ended.code == 0 and seen[0].line() in ended.out, ended.err
    taken = sum(path.stat().st_size for path in (here / "out/checkpoints/step_000001").rglob("*") if path.is_file())
    assert 0.9 < taken / seen[0].checkpoint < 1.1
    assert (here / "out" / "model.safetensors").stat().st_size == pytest.approx(seen[0].model, rel=0.05)


def test_notices_of_few_prompts_and_a_small_disk(here: Path, monkeypatch: pytest.MonkeyPatch):
    few = "--max_samples 3 --max_steps 1 --save_path out --dry_run"
    line = (
        "3 prompts for steps of 4: a step draws the same prompts about 1.3 times; use --rollout_batch_size 3 at most, "
    )
    assert f"notice: {line}or give more prompts\n" in train(few).out
    assert "notice: 3 prompts" not in train(f"{few} --max_samples 4").out
    larger = train(f"{few} --max_samples 4 --train_batch_size 32").out
    assert (
        "4 prompts for steps of 8: a step draws the same prompts about 2 times; use --train_batch_size 16 at" in larger
    )
    refused = train(f"{few} --actor_learning_rate 1e-4 --strict_args")
    assert refused.code == 2 and refused.problems == [
        f"error: {line}or give more prompts (refused under --strict_args)"
    ]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    told = train(f"{few} --max_samples 8 --quiet").out
    assert "notice: the model needs 1.62 MB, and 0.001 MB are free at out; make room, or choose another" in told


def test_steps_that_are_saved_already_are_told(here):
    """77 prompts are an episode."""
    flags = (
        "--fsdp --save_path out --max_steps 4 --save_steps 2 --train_batch_size 320 --rollout_batch_size 80 --dry_run"
    )
    told = "--save_steps 2 cannot matter: --save_interval 1 saves after these steps already"
    assert f"notice: {told}" in train(flags).out
    ended = train(f"{flags} --strict_args --actor_learning_rate 1e-4")
    assert ended.code == 2 and any(problem.startswith(f"error: {told}") for problem in ended.problems)
    assert told not in train(f"{flags} --save_interval 0").out
