"""Whole runs: repeated, killed and resumed, stopped, learning."""

from __future__ import annotations

import random
import re
import shutil
import signal
from statistics import fmean

import pytest
from runs import ROOT, all_rows, assert_same_run, call, read_json, rows, start, train, wait_for_steps, weights

PLAIN, FSDP2, DEEPSPEED = "--fsdp", "--fsdp --bf16", "--zero_stage 3"  # of one process, which on a CPU has float32
each_strategy = pytest.mark.parametrize("strategy", (PLAIN, FSDP2, DEEPSPEED))
in_float32 = pytest.mark.parametrize("strategy", (PLAIN, DEEPSPEED))
INTERRUPTED = [(name, signal.SIGKILL) for name in (PLAIN, FSDP2, DEEPSPEED)] + [(FSDP2, signal.SIGTERM)]
LONG = "--max_steps 12 --save_steps 2 --reward_fn shaped.py:slow --eval_steps 5 --train_batch_size 8 --quiet"


@each_strategy
def test_one_seed_gives_one_run(here, strategy):
    """Two runs agree in every metric and every bit; another seed does not."""
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        flags = f"{strategy} --max_steps 4 --save_path {name} --seed {seed} --train_batch_size 8 --quiet"
        assert train(flags).code == 0
    assert_same_run(here / "a", here / "b")
    assert rows(here / "a") != rows(here / "c")
    assert weights(here / "a") != weights(here / "c")


DRAWS = """
import random

import numpy as np
import torch


def draws(responses):
    return [random.random() + np.random.rand() + torch.rand(()).item() for _ in responses]
"""


def test_one_seed_is_one_for_rewards_that_draw_numbers(here):
    (here / "draws.py").write_text(DRAWS)
    for name in "ab":
        assert train(f"--fsdp --max_steps 2 --save_path {name} --reward_fn draws.py:draws --quiet").code == 0
    assert_same_run(here / "a", here / "b")


@pytest.mark.parametrize(("strategy", "how"), INTERRUPTED)
def test_interrupted_and_resumed_is_uninterrupted(here, strategy, how, record_property):
    """A process is killed (or told to stop) at some step; this process goes on and ends with the same bits."""
    at = random.randrange(3, 9)  # at a random step, on purpose
    record_property("interrupted_after", at)
    process = start(f"{strategy} {LONG} --save_path cut", here)
    wait_for_steps(process, here / "cut", at)
    process.send_signal(how)
    assert train(f"{strategy} {LONG} --save_path whole").code == 0  # beside the dying process: it takes its time
    out, err = process.communicate(timeout=60)
    if how is signal.SIGTERM:
        assert process.returncode == 0, err
        stopped = re.search(r"stopped by SIGTERM after step (\d+); go on with --load_checkpoint", out)
        assert stopped and at <= int(stopped[1]) < 12
        expected = int(stopped[1])
        assert read_json(here / "cut/summary.json")["steps"] == expected
    else:
        assert process.returncode == -how
        expected = None
    assert not (here / "cut/model.safetensors").exists()

    resumed = train(f"{strategy} {LONG} --save_path cut --load_checkpoint")
    assert resumed.code == 0
    said = re.search(r"resumed from step (\d+) \((.+)\)", resumed.out)
    assert said and said[2] == f"cut/checkpoints/step_{int(said[1]):06d}"
    step = int(said[1])
    assert step == expected if expected is not None else (step % 2 == 0 and 2 <= step <= 12)
    assert_same_run(here / "cut", here / "whole")


def test_half_written_files_are_not_believed(here):
    """What a kill can leave: an unfinished checkpoint, one that `latest` names and is gone, half a line of metrics."""
    flags = "--fsdp --save_steps 2 --eval_steps 5 --train_batch_size 8 --quiet --max_steps 6"
    assert train(f"{flags} --save_path whole").code == 0
    assert train(f"{flags} --save_path again").code == 0
    (here / "again/checkpoints/.step_000008.tmp/policy").mkdir(parents=True)
    (here / "again/checkpoints/step_000006").rename(here / "again/checkpoints/.step_000006.tmp")
    with (here / "again/logs/metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "reward/me')
    resumed = train(f"{flags} --save_path again --load_checkpoint")
    assert resumed.code == 0 and "resumed from step 4 (again/checkpoints/step_000004)" in resumed.out
    assert_same_run(here / "again", here / "whole")


def test_nothing_to_resume_starts_fresh_and_says_so(here):
    fresh = train("--fsdp --save_path new --load_checkpoint --max_steps 2 --quiet")
    assert fresh.code == 0
    assert "no checkpoint in new/checkpoints: starting fresh" in fresh.out
    assert train("--fsdp --save_path plain --max_steps 2 --quiet").code == 0
    assert rows(here / "new") == rows(here / "plain")
    assert weights(here / "new") == weights(here / "plain")


def test_a_resumed_run_names_what_has_changed(here):
    assert train("--fsdp --save_path run --max_steps 2 --save_steps 1 --reward_fn shaped.py:length --quiet").code == 0
    (here / "shaped.py").write_text((here / "shaped.py").read_text() + "\n# edited\n")
    flags = "--max_steps 3 --save_steps 1 --reward_fn shaped.py:length --quiet --top_p 0.8 --load_checkpoint"
    flags += " --clip_range 0.1 --packing_samples --micro_rollout_batch_size 2"
    resumed = train(f"--fsdp --save_path run {flags}")
    assert resumed.code == 0
    assert "warning: changed since that checkpoint: --top_p was 0.9, is 0.8" in resumed.out
    assert "warning: changed since that checkpoint: hash of shaped.py was" in resumed.out
    alone = "notice: changed since that checkpoint, which only changes rounding: --micro_rollout_batch_size was "
    assert alone in resumed.out and "; --packing_samples was false, is true\n" in resumed.out
    assert "--clip_range was" not in resumed.out and "training was" not in resumed.out
    assert "--load_checkpoint was" not in resumed.out
    assert [row["step"] for row in rows(here / "run")] == [1, 2, 3]


def test_the_tiny_recipe_learns(here):
    """The sampled reward of examples/tiny_addition.sh, its own arguments, rises clearly; greedy would be jumpy."""
    text = (ROOT / "examples/tiny_addition.sh").read_text()
    command = re.search(r"python train\.py \\\n(.*?)\"\$@\"", text, re.DOTALL)[1].replace("\\\n", " ")
    for name, place in {"$out/start/model": "tiny", "$out/start/train.jsonl": "add.jsonl"}.items():
        command = command.replace(f'"{name}"', place)
    command = command.replace('"$out/start/eval.jsonl"', "eval.jsonl").replace('"$out/run"', "run")
    assert "$" not in command
    ended = call([*command.split(), "--max_steps", "40", "--plot_every", "0", "--quiet"])
    assert ended.code == 0
    reward = [row["reward/mean"] for row in rows(here / "run")]
    # The mean of 5 x 512 samples has a standard error of 0.01.
    assert fmean(reward[-5:]) > fmean(reward[:5]) + 0.1
    summary = read_json(here / "run/summary.json")
    assert summary["reward_first"] == reward[0] and summary["reward_last"] == reward[-1]


@in_float32
def test_many_optimizer_steps_per_rollout(here, strategy):
    """4 x TBS samples per rollout, two epochs: eight optimizer steps, ratios that are clipped, a KL that is paid."""
    flags = "--rollout_batch_size 8 --train_batch_size 8 --max_epochs 2 --init_kl_coef 0.01 --use_kl_loss"
    ended = train(f"{strategy} {flags} --save_path run --max_steps 3 --reward_fn shaped.py:length --quiet")
    assert ended.code == 0
    assert "each rollout of 8 x 4 = 32 samples is trained on in 4 optimizer steps" in ended.out
    for row in all_rows(here / "run"):
        assert row["update/optimizer_steps"] == 8
        assert row["policy/clip_frac"] > 0 and row["kl/ref"] > 0 and row["loss/kl"] > 0
        assert row["mismatch/gap_max"] < 1e-4  # the old log-probabilities are those that the engine sampled with


def test_a_train_batch_of_two_rollouts(here):
    """TBS = 2 x RBS x N: eight prompts a step, sent to the engine four at a time; still exactly on policy."""
    ended = train("--fsdp --train_batch_size 32 --save_path run --max_steps 2 --reward_fn shaped.py:length --quiet")
    assert ended.code == 0
    prompts = len((here / "add.jsonl").read_text().splitlines())
    for number, row in enumerate(all_rows(here / "run"), start=1):
        assert row["update/optimizer_steps"] == 1 and row["policy/clip_frac"] == 0
        assert row["perf/decode_batches"] == 2
        assert row["episode"] == pytest.approx(8 * number / prompts)


def test_an_episode_is_one_pass_over_the_prompts(here):
    """Without --max_steps: ceil(prompts / RBS) steps, and a checkpoint when the pass is done."""
    lines = (here / "add.jsonl").read_text().splitlines()[:10]
    (here / "ten.jsonl").write_text("\n".join(lines) + "\n")
    assert train("--fsdp --prompt_data ten.jsonl --num_episodes 2 --save_path run --quiet").code == 0
    assert [row["step"] for row in rows(here / "run")] == [1, 2, 3, 4, 5]
    assert sorted(p.name for p in (here / "run/checkpoints").glob("step_*")) == ["step_000003", "step_000005"]


def test_an_episode_of_dynamic_sampling_is_one_pass_over_the_prompts_drawn(here):
    """Of ten prompts those at every third place vary: two passes are 20 draws in batches of 4, where ten steps of two
    kept prompts were planned; a run that was killed in between and one that is done go on alike."""
    lines = (here / "add.jsonl").read_text().splitlines()[:10]
    (here / "ten.jsonl").write_text("\n".join(lines) + "\n")
    (here / "third.py").write_text(
        "def third(rollouts):\n    return [float(i % 4 if r.group % 3 == 0 else 1) for i, r in enumerate(rollouts)]\n"
    )
    flags = (
        "--fsdp --prompt_data ten.jsonl --dynamic_sampling --reward_fn third.py:third --save_steps 1 --max_ckpt_num 9"
    )
    flags += " --rollout_batch_size 2 --train_batch_size 8 --num_episodes 2 --plot_every 0"
    ended = train(f"{flags} --eval_data eval.jsonl --save_path run")
    assert ended.code == 0 and "at most 10 steps of 2 prompts" in ended.out
    assert "step 3/10 |" in ended.out and "step 4/4 |" in ended.out
    found = rows(here / "run")
    assert found[-1]["episode"] == 2.0 and found[-2]["episode"] < 2.0 and len(found) == 4
    assert sum(row["rollout/batches"] for row in found) == 10 and found[-1]["rollout/varied_groups_frac"] <= 0.5
    assert "eval/accuracy" in found[-1] and "after" in read_json(here / "run/summary.json")["eval"]
    shutil.copytree(here / "run", here / "again")
    for step in (3, 4):
        shutil.rmtree(here / f"again/checkpoints/step_00000{step}")
    for resumed in (2, 4):
        ended = train(f"{flags} --eval_data eval.jsonl --save_path again --load_checkpoint")
        assert ended.code == 0 and f"resumed from step {resumed} " in ended.out
        assert rows(here / "again") == found and weights(here / "again") == weights(here / "run")
