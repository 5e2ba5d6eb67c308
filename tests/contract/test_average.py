"""The moving average of the weights (`--enable_ema`): what it is after steps, skips and resumes, in every precision.

test_matrix.py has it on several ranks.
"""

from __future__ import annotations

import pytest
import torch
from policies import EACH, Trained, half_frozen, largest_difference, load, save

BETA = 0.75
FLAGS = f"--optimizer adamw --actor_learning_rate 1e-2 --enable_ema --ema_beta {BETA}"
each_strategy = pytest.mark.parametrize("strategy", EACH)


def average(run: Trained) -> dict[str, torch.Tensor]:
    assert run.updater.average is not None
    return {name: value.clone() for name, value in run.updater.average.params()}


@each_strategy
@pytest.mark.parametrize("precision", ("fp32", "bf16"))
def test_it_follows_the_weights_in_float32(trained, rollouts, strategy, precision):
    """Also those of a model of which half does not train, whose frozen weights are their own average."""
    run = trained(f"{strategy} {FLAGS}", model=half_frozen(), precision=precision)
    batch, exact = run.batch(rollouts), {name: value.double() for name, value in run.parameters().items()}
    assert largest_difference(average(run), run.parameters()) == 0
    for number in (1, 2, 3):
        run.learn(batch, number)
        exact = {name: BETA * exact[name] + (1 - BETA) * value for name, value in run.parameters().items()}
        assert largest_difference(average(run), exact) < 3e-7  # weights of size 1, rounded at each step
    assert largest_difference(average(run), run.parameters()) > 1e-3


@each_strategy
def test_a_skipped_step_leaves_it(trained, rollouts, strategy):
    """Not at the weights, towards which a step that was counted by mistake would take it."""
    run = trained(f"{strategy} {FLAGS}")
    batch = run.batch(rollouts)
    run.learn(batch, 1)
    before = average(run)
    broken = batch.advantages.clone()
    broken[0, batch.prompt_lengths[0]] = float("inf")
    assert run.learn(batch.filled(advantages=broken), 2)["update/skipped_steps"] == 1
    assert largest_difference(average(run), before) == 0


@each_strategy
@pytest.mark.parametrize("precision", ("fp32", "bf16"))
def test_a_checkpoint_has_it_to_the_bit(trained, rollouts, strategy, precision, tmp_path):
    run, other = (trained(f"{strategy} {FLAGS}", seed=seed, precision=precision) for seed in (0, 9))
    batch = run.batch(rollouts)
    for number in (1, 2):
        run.learn(batch, number)
    save(run.strategy, run.policy, tmp_path)
    load(other.strategy, other.policy, tmp_path)
    assert largest_difference(average(run), average(other)) == 0
    assert largest_difference(average(run), run.parameters()) > 1e-3
    for each in (run, other):
        each.learn(batch, 3)
    assert largest_difference(average(run), average(other)) == 0


@pytest.mark.parametrize("strategy", ("--zero_stage 2", "--fsdp"))
def test_one_that_a_checkpoint_does_not_have_begins_at_its_weights(trained, rollouts, strategy, tmp_path):
    """And one that it has is left there by a run without, and kept where steps leave no other state behind (SGD)."""
    sgd = f"{strategy} {FLAGS} --optimizer sgd"
    without, first, second = trained(f"{strategy} --optimizer sgd"), trained(sgd, seed=9), trained(sgd, seed=8)
    batch = without.batch(rollouts)
    without.learn(batch)
    save(without.strategy, without.policy, tmp_path)
    load(first.strategy, first.policy, tmp_path)
    assert largest_difference(average(first), without.parameters()) == 0
    first.learn(batch, 2)
    (tmp_path / "again").mkdir()
    save(first.strategy, first.policy, tmp_path / "again")
    for other in (without, second):
        load(other.strategy, other.policy, tmp_path / "again")
        assert largest_difference(other.parameters(), first.parameters()) == 0
    assert largest_difference(average(second), average(first)) == 0
    assert largest_difference(average(first), first.parameters()) > 1e-3
