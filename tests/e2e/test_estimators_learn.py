"""Every estimator learns where their losses differ, through train.py; and no two of them are the same by mistake.

A rollout step is four train batches here and is gone through twice: seven of eight optimizer steps are off-policy.
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from statistics import fmean

import pytest
import torch
from runs import rows, train

from lightrft.args import parse
from lightrft.args.estimators import estimator_names
from lightrft.batch import Batch
from lightrft.build.trainer import build_trainer
from lightrft.preflight import check_inputs
from lightrft.trainer import Trainer
from lightrft.update.partition import Part

TINY = """--pretrain tiny --prompt_data add.jsonl --prompt_max_len 8 --max_new_tokens 4 --max_len 12 --top_p 1
 --max_epochs 2 --lr_scheduler constant --lr_warmup_steps 0 --save_interval 0 --plot_every 0 --fsdp --quiet"""
LEARN = f"""{TINY} --reward_fn last_number --rollout_batch_size 16 --n_samples_per_prompt 16 --train_batch_size 64
 --micro_train_batch_size 64 --micro_rollout_batch_size 16 --actor_learning_rate 2e-4"""
STEPS, ENDS, RISE = 40, 10, 0.08  # seen: 0.16 (gspo) to 0.28; a mean of ten steps varies by 0.02
OWN = {"gae": "--critic_learning_rate 1e-3"}  # flags beside the defaults, which are for large models


@pytest.mark.parametrize("name", estimator_names())
def test_every_estimator_learns_off_policy(here: Path, name: str):
    ended = train(f"--advantage_estimator {name} --max_steps {STEPS} --save_path out {OWN.get(name, '')}", LEARN)
    assert ended.code == 0, ended.err
    run = rows(here / "out")
    rewards = [row["reward/mean"] for row in run]
    assert fmean(row["policy/clip_frac"] for row in run) > 0.001
    assert fmean(rewards[-ENDS:]) - fmean(rewards[:ENDS]) > RISE


# Gradients on one recorded batch

SMALL = f"""{TINY} --reward_fn shaped.py:length --rollout_batch_size 16 --n_samples_per_prompt 8 --train_batch_size 32
 --micro_train_batch_size 128"""
EQUAL = {frozenset({"gspo", "gspo_token"})}  # with one advantage per response
PARALLEL = EQUAL | {frozenset({"dr_grpo", "rloo"})}  # without KL: n / (n - 1) times the advantage
ALL_ALIKE = "--clip_range 0.2 --clip_range_higher 0.3 --loss_agg_mode token-mean"


def built(flags: str) -> Trainer:
    args = parse(f"{SMALL} {flags}".split())
    return build_trainer(args, check_inputs(args))


@pytest.fixture
def recorded(here: Path) -> Batch:
    """Samples of the second step of a run. `moved` is the policy after it has learned from those of the third instead:
    so its ratios are on both sides of 1, whatever the advantages, and old policy and reference differ."""
    trainer = built("--init_kl_coef 0.01 --actor_learning_rate 1e-3 --save_path first")
    batches = []
    for step in (1, 2, 3):
        rollouts, index = trainer.dealer.deal(trainer.collector.collect(trainer.prompts, step), step)
        batches.append(trainer.scorer.to_batch(rollouts, index, temperature=1.0))
        if step != 2:
            learn(trainer, batches[-1], step)
    trainer.checkpointer.export(here / "moved")
    values = torch.rand(batches[1].input_ids.shape, generator=torch.Generator().manual_seed(0))
    return batches[1].filled(values=values)  # what a critic would have said


def learn(trainer: Trainer, batch: Batch, step: int) -> None:
    batch, _ = trainer.advantages(batch)
    for part in trainer.updater.partition(batch, step):
        trainer.updater.step(batch, part)


def gradient(batch: Batch, name: str, flags: str) -> torch.Tensor:
    """Of one step over the whole batch: what SGD at a rate of 1 and without clipping takes off the moved policy."""
    sgd = "--optimizer sgd --actor_learning_rate 1 --max_norm 0"
    trainer = built(f"--pretrain moved --advantage_estimator {name} {flags} {sgd} --save_path {name}")
    batch, _ = trainer.advantages(batch)
    before = parameters(trainer)
    trainer.updater.step(batch, Part(tuple(range(len(batch))), 0))
    if name == "group_norm":
        found = trainer.updater.report().metrics
        assert min(found["policy/clip_frac_high"], found["policy/clip_frac_low"]) > 0.01, "hardly off-policy"
    return before - parameters(trainer)


def parameters(trainer: Trainer) -> torch.Tensor:
    full = trainer.updater.strategy.full_params(trainer.updater.policy.handle)
    return torch.cat([value.detach().double().flatten() for _, value in full])


def alike(gradients: dict[str, torch.Tensor]) -> set[frozenset[str]]:
    """Pairs that differ by less than a thousandth of the larger one."""
    found = set()
    for left, right in combinations(gradients, 2):
        a, b = gradients[left], gradients[right]
        if (a - b).norm() < 1e-3 * max(a.norm(), b.norm()):
            found.add(frozenset({left, right}))
    return found


@pytest.mark.parametrize(
    ("flags", "parallel"),
    [("--init_kl_coef 0", PARALLEL), (f"--init_kl_coef 0 {ALL_ALIKE}", PARALLEL), ("--init_kl_coef 0.1", EQUAL)],
    ids=["own defaults", "one set of flags", "with KL"],
)
def test_no_two_have_one_gradient_unless_the_mathematics_says_so(recorded: Batch, flags: str, parallel: set):
    gradients = {name: gradient(recorded, name, flags) for name in estimator_names()}
    norms = {name: found.norm() for name, found in gradients.items()}
    assert min(norms.values()) > 1e-3
    assert alike(gradients) == EQUAL
    assert alike({name: found / norms[name] for name, found in gradients.items()}) == parallel
    if ALL_ALIKE in flags:
        assert float(norms["rloo"] / norms["dr_grpo"]) == pytest.approx(8 / 7, rel=1e-4)
