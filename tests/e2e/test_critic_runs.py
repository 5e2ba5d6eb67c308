"""`--advantage_estimator gae` from the command line: it learns, freezes, resumes, exports, refuses what is wrong."""

from __future__ import annotations

import json
import shutil
import signal
from statistics import fmean

import pytest
import torch
from runs import all_rows, call, files, rows, start, train, wait_for_steps, weights
from safetensors.torch import load_file, save_file

GAE = "--advantage_estimator gae --critic_learning_rate 2e-3 --quiet"
each_strategy = pytest.mark.parametrize("strategy", ("--fsdp", "--zero_stage 1", "--zero_stage 3"))


def tensors(folder):
    return load_file(folder / "model.safetensors")


EASE = """
def ease(responses, prompts):
    return [0.1 * float(prompt[-1]["content"][0]) for prompt in prompts]
"""


def test_the_critic_learns_while_the_policy_stands_still(here):
    """A reward that the prompt alone decides, so that a critic can know it: nearly all of its variance is explained."""
    (here / "ease.py").write_text(EASE)
    flags = f"{GAE} --fsdp --max_steps 12 --freezing_actor_steps 12 --rollout_batch_size 16 --train_batch_size 16"
    flags += " --micro_train_batch_size 16 --max_epochs 2 --lr_warmup_steps 0 --lr_scheduler constant --lambd 1"
    assert train(f"{flags} --reward_fn ease.py:ease --save_path run").code == 0
    found = all_rows(here / "run")
    assert all(row["update/optimizer_steps"] == 8 and row["critic/skipped_steps"] == 0 for row in found)
    assert not any("policy/lr" in row for row in found) and any(row["critic/clip_frac"] > 0 for row in found)
    assert fmean(row["critic/loss"] for row in found[-3:]) < 0.3 * found[0]["critic/loss"]
    assert found[0]["critic/explained_variance"] == pytest.approx(0, abs=1e-6), "a new head says 0 of everything"
    assert fmean(row["critic/explained_variance"] for row in found[-3:]) > 0.7


def test_policy_and_critic_learn_the_tiny_task(here):
    """Where losses differ from each other: four optimizer steps in two epochs a rollout, KL in the reward."""
    flags = f"{GAE} --fsdp --max_steps 12 --rollout_batch_size 64 --n_samples_per_prompt 8 --train_batch_size 128"
    flags += " --micro_train_batch_size 128 --micro_rollout_batch_size 64 --max_epochs 2 --critic_learning_rate 1e-3"
    flags += " --actor_learning_rate 3e-4 --prompt_max_len 8 --max_len 12 --eval_steps 99 --save_interval 0"
    assert train(f"{flags} --save_path run").code == 0
    found = all_rows(here / "run")
    assert all(row["update/optimizer_steps"] == 8 and row["policy/grad_norm"] > 0 for row in found)
    reward = [row["reward/mean"] for row in found]
    assert fmean(reward[-3:]) > fmean(reward[:3]) + 0.1  # the mean of 3 x 512 samples has a standard error of 0.01


@each_strategy
def test_a_frozen_policy_keeps_its_bytes(here, strategy):
    assert train(f"{GAE} {strategy} --max_steps 2 --freezing_actor_steps 2 --save_path run").code == 0
    before, after = tensors(here / "tiny"), tensors(here / "run")
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    learned = tensors(here / "run/critic")
    assert learned["score.weight"].any()
    assert any(not torch.equal(before[name], learned[name]) for name in before)


@each_strategy
def test_killed_and_resumed_is_uninterrupted(here, strategy):
    """The policy starts to learn after the kill, from a checkpoint whose optimizer had not stepped."""
    flags = f"{GAE} {strategy} --max_steps 8 --save_steps 2 --train_batch_size 8 --freezing_actor_steps 4"
    flags += " --reward_fn shaped.py:slow"
    process = start(f"{flags} --save_path cut", here)
    wait_for_steps(process, here / "cut", 3)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (here / "cut/checkpoints/latest").write_text("step_000002\n")
    resumed = train(f"{flags} --save_path cut --load_checkpoint")
    assert resumed.code == 0 and "resumed from step 2" in resumed.out
    assert train(f"{flags} --save_path whole").code == 0
    assert rows(here / "cut") == rows(here / "whole")
    assert weights(here / "cut") == weights(here / "whole")
    assert weights(here / "cut/critic") == weights(here / "whole/critic")
    assert train(f"{flags} --save_path often --save_steps 1").code == 0
    assert weights(here / "often") == weights(here / "whole"), "how often is saved must not matter"


def test_an_exported_critic_goes_on(here):
    """Its head comes with it: the next run's first values are not those of a new head."""
    assert train(f"{GAE} --fsdp --max_steps 6 --save_path one").code == 0
    assert {"critic/config.json", "critic/model.safetensors", "critic/tokenizer.json"} <= files(here / "one")
    loud = f"{GAE} --no-quiet --fsdp --max_steps 1 --save_path two --critic_pretrain one/critic"
    ended = train(loud)
    assert "critic one/critic, value head score (from its weights)" in ended.out.splitlines()
    other = train(f"{loud} --save_path three --value_head_prefix v_head --freezing_actor_steps 3")
    assert "value head v_head (new, starts at 0); the policy never learns in this run" in other.out
    later = train(f"{loud} --save_path four --max_steps 4 --freezing_actor_steps 3 --dry_run")
    assert "(from its weights); the policy learns from step 4 on" in later.out
    assert rows(here / "two")[0]["critic/loss"] != rows(here / "three")[0]["critic/loss"]
    assert "v_head.weight" in tensors(here / "three/critic")
    assert "UNEXPECTED" not in ended.out + ended.err


def refusals(flags: str) -> list[str]:
    ended = train(f"{GAE} --fsdp --save_path run --max_steps 1 {flags}")
    assert ended.code == 2
    return [line.removeprefix("error: ") for line in ended.err.splitlines() if line.startswith("error: ")]


def test_what_cannot_be_a_critic_is_refused(here):
    before = files(here)
    (line,) = refusals("--critic_pretrain ./nowhere")
    assert line.startswith("--critic_pretrain ./nowhere: no such model folder")
    (line,) = refusals("--value_head_prefix model")
    assert line.startswith("--value_head_prefix model is the name of another part of the critic")
    assert files(here) == before
    shutil.copytree(here / "tiny", here / "other")
    config = json.loads((here / "other/config.json").read_text())
    (here / "other/config.json").write_text(json.dumps({**config, "max_position_embeddings": 20}))
    (line,) = refusals("--critic_pretrain other")
    assert "but --critic_pretrain other has 20 positions" in line
    (here / "other/config.json").write_text(json.dumps(config))
    save_file({**tensors(here / "other"), "score.weight": torch.zeros(3, 128)}, here / "other/model.safetensors")
    (line,) = refusals("--critic_pretrain other")
    assert line.startswith("--value_head_prefix: score.weight of other is 3 x 128, a critic's is 1 x 128")


def test_a_checkpoint_without_a_critic_is_refused(here):
    assert train("--fsdp --save_path run --max_steps 1 --save_steps 1 --quiet").code == 0
    (line,) = refusals("--load_checkpoint --max_steps 2")
    assert line == (
        "--advantage_estimator: the checkpoint run/checkpoints/step_000001 was made without a critic; start anew"
    )


def test_one_sample_a_prompt_is_enough(here):
    flags = f"{GAE} --fsdp --n_samples_per_prompt 1 --rollout_batch_size 16 --max_steps 2 --save_path run"
    assert train(flags).code == 0
    assert all(row["policy/grad_norm"] > 0 for row in rows(here / "run"))


def test_the_memory_of_a_critic_is_counted(here):
    flags = "--save_path run --assume_gpus 1x80GB --zero_stage 1"
    plain, critic = (train(f"{flags} {more}").out for more in ("--init_kl_coef 0", f"{GAE} --init_kl_coef 0"))
    assert "weights, gradients and optimizer take" in plain and plain.splitlines()[-1] != critic.splitlines()[-1]
    assert call(["--help"]).out.count("--critic_pretrain") == 1
