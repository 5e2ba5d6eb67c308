"""What holds of a configuration, worked out by hand for each of the estimators."""

from __future__ import annotations

import pytest
from command_lines import parsed

from lightrft.args.batching import rollout_samples, rows_per_pass, samples_of
from lightrft.args.conditions import kl_adapts, kl_is_to_reference, kl_place, scores_before_learning
from lightrft.recipe import kl_term, needs_old_logprobs


@pytest.mark.parametrize(
    ("text", "adapts"),
    [
        ("--kl_target 0.01", True),
        ("", False),
        ("--kl_target 0", False),
        ("--kl_target 0.01 --init_kl_coef 0", False),
        ("--advantage_estimator cpgd", False),  # its drift is 0 in a single optimizer step
        ("--advantage_estimator cpgd --max_epochs 2", True),
        ("--advantage_estimator cpgd --max_epochs 2 --kl_target 0", False),
    ],
)
def test_a_coefficient_adapts(text: str, adapts: bool):
    assert kl_adapts(parsed(text)) == adapts


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "loss"),
        ("--advantage_estimator reinforce", "reward"),
        ("--advantage_estimator reinforce --use_kl_loss", "loss"),
        ("--advantage_estimator reinforce --no-use_kl_loss", "reward"),
        ("--init_kl_coef 0 --no-use_kl_loss", "off"),
        ("--advantage_estimator cpgd --use_kl_loss", "drift"),
    ],
)
def test_where_the_kl_stands(text: str, place: str):
    assert kl_place(parsed(text)) == place


@pytest.mark.parametrize("coefficient", ("--init_kl_coef 0", "--init_kl_coef 0.1"))
@pytest.mark.parametrize("loss", ("", "--use_kl_loss"))
@pytest.mark.parametrize("name", ("group_norm", "reinforce", "cpgd"))
@pytest.mark.parametrize("more", ("", "--max_epochs 2", "--high_entropy_token_ratio 0.2"))
def test_what_is_scored_is_what_the_run_asks_for(name: str, loss: str, coefficient: str, more: str):
    """Asked here of the flags alone, and in recipe.py of the parts of the run."""
    args = parsed(f"--advantage_estimator {name} {loss} {coefficient} {more}")
    term = kl_term(args)
    assert scores_before_learning(args) == (term.needs_reference or needs_old_logprobs(args, term))
    assert term.needs_reference == (args.algorithm.init_kl_coef > 0 and kl_is_to_reference(args))


def test_samples():
    args = parsed("--rollout_batch_size 6 --n_samples_per_prompt 3 --train_batch_size 18 --micro_rollout_batch_size 5")
    assert (samples_of(args, 7), rollout_samples(args), rows_per_pass(args)) == (21, 18, 15)


def test_a_target_of_0_is_a_fixed_coefficient():
    adapted, fixed = (parsed(f"--advantage_estimator cpgd --max_epochs 2 --kl_target {target}") for target in (0.01, 0))
    assert (kl_term(adapted).controller.target, kl_term(fixed).controller.target) == (0.01, None)
