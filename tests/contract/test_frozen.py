"""What requires a gradient when a model is handed over trains, and nothing else; checkpoints and exports keep both."""

from __future__ import annotations

import pytest
import torch
from policies import (
    STRATEGIES,
    check_that_it_goes_on,
    half_frozen,
    largest_difference,
    named,
    off_policy,
    plain_steps,
    settings,
)
from test_precision import each_half

each_strategy = pytest.mark.parametrize("strategy", STRATEGIES)


def frozen_ones(parameters):
    names = [name for name, p in half_frozen().named_parameters() if not p.requires_grad]
    assert 0 < len(names) < len(parameters)
    return {name: parameters[name] for name in names}


@each_strategy
@pytest.mark.parametrize("max_norm", (0.0, 0.05))
def test_half_of_a_model_takes_the_plain_steps(trained, rollouts, samples, strategy, max_norm):
    """Six steps in two turns, in micro-batches, clipped to a norm of what trains or not; the others keep their bits."""
    flags = "--train_batch_size 4 --micro_train_batch_size 2 --actor_learning_rate 0.2"
    run = trained(f"{strategy} {flags} --max_norm {max_norm}", model=half_frozen())
    model, before = half_frozen(), run.parameters()
    for step in (1, 2):
        batch = run.batch(rollouts)
        old, rows = off_policy(samples, batch.input_ids.shape[1])
        parts = list(run.updater.partition(batch, step))
        norms = plain_steps(model, samples, settings(old=old), parts, learning_rate=0.2, max_norm=max_norm)
        metrics = run.learn(batch.filled(old_logprobs=rows), step)
        assert metrics["policy/grad_norm"] == pytest.approx(sum(norms) / len(norms), rel=1e-4)
    after = run.parameters()
    assert largest_difference(after, named(model)) < 1e-6
    assert largest_difference(frozen_ones(after), frozen_ones(before)) == 0
    assert all(bool((after[name] != before[name]).any()) for name in after if name not in frozen_ones(after))


@each_half
def test_frozen_weights_finer_than_the_precision_are_kept(trained, rollouts, strategy, precision):
    """Handed out as they came in, although the model computes with rounded ones."""
    run = trained(f"{strategy} --actor_learning_rate 0.2", model=half_frozen(), precision=precision)
    run.learn(run.batch(rollouts))
    assert largest_difference(frozen_ones(run.parameters()), frozen_ones(named(half_frozen()))) == 0
    assert largest_difference(run.parameters(), named(half_frozen())) > 1e-2


@pytest.mark.parametrize("precision", ("fp32", "bf16"))
@each_strategy
def test_a_checkpoint_of_half_a_model_goes_on(trained, rollouts, strategy, precision, tmp_path):
    """Parameters, frozen ones too, moments and schedule, shown by the bits of the next two steps."""
    flags = f"{strategy} --optimizer adamw --actor_learning_rate 1e-2 --lr_scheduler linear --lr_warmup_steps 2"
    run, other = (trained(flags, model=half_frozen(seed), precision=precision) for seed in (0, 9))
    batch = run.batch(rollouts)
    check_that_it_goes_on(run, other, batch, tmp_path)
    with torch.no_grad():
        left, right = (each.model.logprobs(batch).logprobs for each in (run, other))
    assert torch.equal(left, right)
