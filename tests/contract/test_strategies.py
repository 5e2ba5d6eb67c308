"""DeepSpeed ZeRO 1, 2, 3 and FSDP2, all real, against a plain PyTorch loop: SGD, no clipping, float32."""

from __future__ import annotations

import copy
import dataclasses

import plain
import pytest
import torch
from policies import EACH, largest_difference, named, off_policy, plain_steps, settings, small_model

MODES = (
    "token-mean",
    "seq-mean-token-sum",
    "seq-mean-token-mean",
    "seq-mean-token-sum-norm",
    "prompt-mean-token-mean",
)
each_strategy = pytest.mark.parametrize("strategy", EACH)
zero2_and_fsdp = pytest.mark.parametrize("strategy", ("--zero_stage 2", "--fsdp"))


def smaller(mode: str) -> str:
    """With rate 0.1 the bound of 1e-6 on parameters shows the gradient of this mode to 1e-5 only, not to 1e-6.

    At rate 1, off policy, the largest difference is 1.2e-6 (largest entry 0.93). Against float64 the trainer is off by
    8.7e-7 and the plain float32 loop itself by 8.0e-7: two roundings add up here.
    """
    return "--actor_learning_rate 0.1" if mode == "seq-mean-token-sum" else ""


@each_strategy
def test_one_step_is_the_plain_step(trained, rollouts, samples, strategy):
    """On policy, every row of three groups, micro-batches of five: the parameters, and so the gradient (lr 1)."""
    run, model = trained(f"{strategy} --train_batch_size 12 --micro_train_batch_size 6"), small_model()
    batch = run.batch(rollouts)
    norms = plain_steps(model, samples, settings(), run.updater.partition(batch, 1), learning_rate=1.0)
    before = run.parameters()
    metrics = run.learn(batch)
    assert largest_difference(run.parameters(), named(model)) < 1e-6
    assert largest_difference(run.parameters(), before) > 1e-2, "the step must move the parameters, or it shows nothing"
    assert metrics["policy/grad_norm"] == pytest.approx(norms[0], rel=1e-5)
    assert metrics["policy/lr"] == 1.0


@each_strategy
def test_several_steps_are_the_plain_steps(trained, rollouts, samples, strategy):
    """Two epochs of three optimizer steps, old log-probabilities from the scorer, two turns of the loop."""
    flags = "--train_batch_size 4 --max_epochs 2 --micro_train_batch_size 2 --actor_learning_rate 0.05"
    run, model = trained(f"{strategy} {flags}"), small_model()
    for step in (1, 2):
        batch = run.batch(rollouts)
        with torch.no_grad():
            old = [plain.logprobs(model, sample, 0.8) for sample in samples]
        norms = plain_steps(model, samples, settings(old=old), run.updater.partition(batch, step), learning_rate=0.05)
        metrics = run.learn(batch, step)
        assert metrics["update/optimizer_steps"] == 6
        assert metrics["policy/grad_norm"] == pytest.approx(sum(norms) / len(norms), rel=1e-4)
    assert largest_difference(run.parameters(), named(model)) < 1e-6
    assert largest_difference(run.parameters(), named(small_model())) > 1e-2


@zero2_and_fsdp
@pytest.mark.parametrize("mode", MODES)
def test_every_aggregation_off_policy(trained, rollouts, samples, strategy, mode):
    """Clipped ratios, an invalid sample, a constant group; the split into micro-batches of any size does not matter."""
    results = []
    for micro in (1, 4, 12):
        run = trained(f"{strategy} --loss_agg_mode {mode} --micro_train_batch_size {micro} {smaller(mode)}")
        batch = run.batch(rollouts)
        old, rows = off_policy(samples, batch.input_ids.shape[1])
        metrics = run.learn(batch.filled(old_logprobs=rows))
        results.append(run.parameters())
        assert metrics["policy/clip_frac"] > 0.1
    model = small_model()
    parts = list(run.updater.partition(batch, 1))
    plain_steps(model, samples, settings(mode, old=old), parts, learning_rate=run.args.training.actor_learning_rate)
    for result in results:
        assert largest_difference(result, named(model)) < 1e-6


@zero2_and_fsdp
@pytest.mark.parametrize("mode", MODES)
def test_kl_loss_against_a_frozen_reference(trained, rollouts, samples, strategy, mode):
    """The KL term has the mode and the denominators of the policy term; the reference never changes."""
    flags = f"{strategy} --init_kl_coef 0.05 --loss_agg_mode {mode} --micro_train_batch_size 3 {smaller(mode)}"
    run, model, reference = trained(flags, reference_seed=5), small_model(), small_model(5)
    with torch.no_grad():
        fixed = [plain.logprobs(reference, sample, 0.8) for sample in samples]
    batch = run.batch(rollouts)
    parts = list(run.updater.partition(batch, 1))
    without, rate = copy.deepcopy(model), run.args.training.actor_learning_rate
    plain_steps(model, samples, settings(mode, kl_coef=0.05, reference=fixed), parts, learning_rate=rate)
    plain_steps(without, samples, settings(mode), parts, learning_rate=rate)
    metrics = run.learn(batch)
    assert largest_difference(run.parameters(), named(model)) < 1e-6
    assert largest_difference(named(without), named(model)) > 1e-3, "the KL term must show"
    assert metrics["kl/ref"] > 0
    frozen = dict(run.strategy.full_params(run.reference))
    assert largest_difference({k: v.detach() for k, v in frozen.items()}, named(reference)) == 0


@each_strategy
def test_longer_padding_changes_nothing(trained, rollouts, strategy):
    results = []
    for extra in (0, 9):
        run = trained(f"{strategy} --micro_train_batch_size 4")
        batch = run.batch(rollouts)
        widened = {
            name: torch.nn.functional.pad(value, (0, extra), value=7 if name == "input_ids" else 0)
            for name, value in batch._tensors().items()
            if value.dim() == 2
        }
        batch = batch.filled(**widened)
        part = next(run.updater.partition(batch, 1))
        # Parts are trimmed to their longest row, so that row is told to be longer than it is.
        batch.lengths[0] = batch.input_ids.shape[1]
        run.updater.step(batch, part)
        results.append(run.parameters())
    assert largest_difference(*results) < 1e-6
    assert largest_difference(results[0], named(small_model())) > 1e-2


@each_strategy
@pytest.mark.parametrize("epochs", (1, 2))
def test_prompts_computed_once_give_the_same_gradient(trained, rollouts, strategy, epochs):
    """--share_prompts packs a group behind one prompt; the short cut may not be taken silently, so it is counted."""
    results, tokens = [], []
    for flag in ("--no-share_prompts", "--share_prompts"):
        run = trained(f"{strategy} --micro_train_batch_size 4 --max_epochs {epochs} {flag}")
        long = [dataclasses.replace(r, prompt_ids=r.prompt_ids * 6) for r in rollouts]
        tokens.append(run.learn(run.batch(long))["perf/train_tokens"])
        results.append(run.parameters())
    assert tokens[1] < tokens[0]
    assert largest_difference(*results) < 1e-6
    assert largest_difference(results[0], named(small_model())) > 1e-2


@each_strategy
def test_clipping_is_the_plain_clipping(trained, rollouts, samples, strategy):
    """The norm that is reported is the one before clipping."""
    run, model = trained(f"{strategy} --max_norm 0.05 --micro_train_batch_size 4"), small_model()
    batch = run.batch(rollouts)
    norms = plain_steps(model, samples, settings(), run.updater.partition(batch, 1), learning_rate=1.0, max_norm=0.05)
    metrics = run.learn(batch)
    assert norms[0] > 0.5, "the gradient must be long enough to be clipped"
    assert metrics["policy/grad_norm"] == pytest.approx(norms[0], rel=1e-5)
    assert largest_difference(run.parameters(), named(model)) < 1e-6
    moved = {name: value - named(small_model())[name] for name, value in run.parameters().items()}
    assert sum(float((v.double() ** 2).sum()) for v in moved.values()) ** 0.5 == pytest.approx(0.05, rel=1e-4)


@each_strategy
def test_a_gradient_that_is_not_finite_skips_the_step(trained, rollouts, samples, strategy):
    """Nothing moves, the skip is reported, and the next step is as if nothing had happened."""
    run, model = trained(f"{strategy} --micro_train_batch_size 4 --max_norm 1"), small_model()
    batch = run.batch(rollouts)
    advantages = batch.advantages.clone()
    advantages[0, len(samples[0].prompt)] = float("inf")
    before = run.parameters()
    broken = run.learn(batch.filled(advantages=advantages))
    assert broken["update/skipped_steps"] == 1
    assert largest_difference(run.parameters(), before) == 0
    plain_steps(model, samples, settings(), run.updater.partition(batch, 1), learning_rate=1.0, max_norm=1.0)
    assert run.learn(batch)["update/skipped_steps"] == 0
    assert largest_difference(run.parameters(), named(model)) < 1e-6
