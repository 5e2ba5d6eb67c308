"""For every estimator: the parameters after a turn of the loop do not depend on the micro-batches it was cut into."""

from __future__ import annotations

import pytest
from policies import largest_difference, make_samples, off_policy

from lightrft.args.estimators import declared, estimator_names

# SGD without clipping, two epochs of three optimizer steps, every term of the loss in play.
FLAGS = """--zero_stage 1 --train_batch_size 4 --max_epochs 2 --actor_learning_rate 0.05 --init_kl_coef 0.05
 --is_correction token_truncate --entropy_coef 0.01"""
WITHOUT_CRITIC = [name for name in estimator_names() if "critic" not in declared(name).needs]  # test_critic_steps.py


@pytest.mark.parametrize("name", WITHOUT_CRITIC)
def test_micro_batches_do_not_matter(trained, rollouts, name):
    found = {}
    for micro in (1, 2, 4):
        flags = f"{FLAGS} --advantage_estimator {name} --micro_train_batch_size {micro}"
        run = trained(flags, reference_seed=3)
        before = run.parameters()
        batch = run.batch(rollouts)
        _, old = off_policy(make_samples(), batch.input_ids.shape[1])
        run.learn(run.batch(rollouts, old_logprobs=old))
        found[micro] = run.parameters()
        assert largest_difference(found[micro], before) > 1e-3, "the turn must move the parameters, or it shows nothing"
    assert largest_difference(found[1], found[4]) < 1e-6  # float32 parameters of size 1, six steps
    assert largest_difference(found[2], found[4]) < 1e-6


def test_what_the_engine_says_of_a_hot_first_token_does_not_matter(trained, rollouts):
    flags = "--zero_stage 1 --is_correction token_mask --is_low 0.1 --is_cap 10"
    found = {}
    for fire in ("--use_fire", "--no-use_fire"):
        for gap in (0.0, 9.0):
            run = trained(f"{flags} {fire}")
            given = run.batch(rollouts).rollout_logprobs.clone()
            for row, rollout in enumerate(rollouts):
                given[row, len(rollout.prompt_ids)] -= gap
            run.learn(run.batch(rollouts, rollout_logprobs=given))
            found[fire, gap] = run.parameters()
    assert largest_difference(found["--use_fire", 0.0], found["--use_fire", 9.0]) == 0
    assert largest_difference(found["--no-use_fire", 0.0], found["--no-use_fire", 9.0]) > 1e-3
