"""The critic's steps beside the policy's, under real strategies, against a plain PyTorch loop: SGD, no clipping."""

from __future__ import annotations

from functools import partial

import pytest
from plain import sgd_step
from plain_critic import GAE, PlainCritic, plain_turn
from policies import largest_difference, load, named, save, save_critic, small_model

STRATEGIES = ("--zero_stage 1", "--zero_stage 3", "--fsdp")
each_strategy = pytest.mark.parametrize("strategy", STRATEGIES)
SLOW = "--actor_learning_rate 0.02 --critic_learning_rate 0.02"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_critic(tmp_path_factory.mktemp("critic"))


def sgd(policy, critic):
    """Steps at these rates; None does not learn."""
    step = partial(sgd_step, learning_rate=policy) if policy is not None else None
    return {"step_policy": step, "step_critic": partial(sgd_step, learning_rate=critic)}


def critic_parameters(run):
    return {name: value.detach().clone() for name, value in run.strategy.full_params(run.updater.critic.model.handle)}


@each_strategy
@pytest.mark.parametrize("micro", (1, 4))
def test_policy_and_critic_take_the_plain_steps(trained, rollouts, samples, strategy, micro, folder):
    """Two epochs of three optimizer steps in two turns, KL in the reward, values that are clipped."""
    flags = f"{GAE} {SLOW} --train_batch_size 4 --micro_train_batch_size {micro} --max_epochs 2 --init_kl_coef 0.1"
    run = trained(f"{strategy} {flags} --critic_pretrain {folder}", reference_seed=5)
    policy, critic, reference = small_model(), PlainCritic(folder), small_model(5)
    for turn in (1, 2):
        batch = run.batch(rollouts)
        parts = list(run.updater.partition(batch, turn))
        seen = plain_turn(policy, critic, reference, samples, parts, beta=0.1, **sgd(0.02, 0.02))
        metrics = run.learn(batch, turn)
        assert metrics["update/optimizer_steps"] == 6 and metrics["critic/lr"] == 0.02
        assert metrics["critic/loss"] == pytest.approx(sum(loss for loss, _ in seen) / 6, rel=1e-5)
        assert metrics["critic/grad_norm"] == pytest.approx(sum(norm for _, norm in seen) / 6, rel=1e-5)
        assert metrics["critic/clip_frac"] > 0.05
    assert largest_difference(run.parameters(), named(policy)) < 1e-6
    assert largest_difference(critic_parameters(run), named(critic)) < 1e-6
    assert largest_difference(critic_parameters(run), named(PlainCritic(folder))) > 1e-2
    assert largest_difference(run.parameters(), named(small_model())) > 1e-2


@each_strategy
def test_one_step_has_the_plain_gradient(trained, rollouts, samples, strategy, folder):
    """At rate 1 the difference of parameters is the gradient; prompts shared or not, and in any micro-batches."""
    found = {}
    for flags in ("--no-share_prompts --micro_train_batch_size 12", "--share_prompts --micro_train_batch_size 3"):
        run = trained(f"{strategy} {GAE} --critic_learning_rate 1 {flags} --critic_pretrain {folder}")
        run.learn(run.batch(rollouts))
        found[flags] = critic_parameters(run)
    critic = PlainCritic(folder)
    parts = run.updater.partition(run.batch(rollouts), 1)
    plain_turn(small_model(), critic, small_model(), samples, parts, beta=0.0, **sgd(1.0, 1.0))
    for parameters in found.values():
        assert largest_difference(parameters, named(critic)) < 1e-6
    assert largest_difference(named(critic), named(PlainCritic(folder))) > 1e-2


@each_strategy
def test_a_frozen_policy_keeps_its_bits_and_its_schedule(trained, rollouts, samples, strategy, folder):
    """The critic learns as if the policy did, too."""
    flags = (
        f"{GAE} --critic_learning_rate 0.02 --freezing_actor_steps 2 --lr_scheduler linear --micro_train_batch_size 4"
    )
    run, critic = trained(f"{strategy} {flags} --critic_pretrain {folder}"), PlainCritic(folder)
    before, seen = run.parameters(), []
    for turn in (1, 2, 3):
        batch = run.batch(rollouts)
        if turn == 1:
            parts = run.updater.partition(batch, turn)
            plain_turn(small_model(), critic, small_model(), samples, parts, beta=0.0, **sgd(None, 0.02))
        seen.append(run.learn(batch, turn))
        if turn == 1:
            assert largest_difference(critic_parameters(run), named(critic)) < 1e-6
        assert (largest_difference(run.parameters(), before) == 0) == (turn < 3)
    assert "policy/lr" not in seen[1] and "loss/policy" not in seen[1]
    assert seen[2]["policy/lr"] == pytest.approx(1.0) and seen[2]["critic/lr"] == pytest.approx(0.02 * 0.98)


ADAM = "--optimizer adamw --actor_learning_rate 1e-2 --critic_learning_rate 1e-2 --max_norm 1"


@each_strategy
def test_a_checkpoint_before_the_first_step_changes_nothing(trained, rollouts, strategy, folder, tmp_path):
    """A frozen policy is saved with an optimizer that has not stepped; the run that saved and the one that loaded go on
    as the one that did neither."""
    flags = f"{strategy} {GAE} {ADAM} --freezing_actor_steps 1 --critic_pretrain {folder}"
    plainly, saved = (trained(flags) for _ in range(2))
    batch = plainly.batch(rollouts)
    for run in (plainly, saved):
        run.learn(batch, 1)
    loaded = trained(flags, seed=9)
    for name in ("policy", "critic"):
        (tmp_path / name).mkdir()
        handles = [run.policy if name == "policy" else run.updater.critic.model.handle for run in (saved, loaded)]
        save(saved.strategy, handles[0], tmp_path / name)
        load(loaded.strategy, handles[1], tmp_path / name)
    for step in (2, 3):
        seen = [run.learn(batch, step) for run in (plainly, saved, loaded)]
        assert seen[0] == seen[1] == seen[2]
    for other in (saved, loaded):
        assert largest_difference(plainly.parameters(), other.parameters()) == 0
        assert largest_difference(critic_parameters(plainly), critic_parameters(other)) == 0
    assert largest_difference(plainly.parameters(), named(small_model())) > 1e-3
