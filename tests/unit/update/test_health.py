"""What keeps a run from learning is said, and ends it where it does not pass."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lightrft.errors import RunFailed
from lightrft.ranks.base import ONE_RANK
from lightrft.strategy.base import StepReport
from lightrft.update.health import Health, Skips, none_finite
from lightrft.update.metrics import MetricSums

NAN = float("nan")
TAKEN, SKIPPED, SCALED = (StepReport(1.0, 1e-3, skipped, scaling) for skipped, scaling in ((0, 0), (1, 0), (1, 1)))


def note(skips, reports, first=1, **sums):
    made = MetricSums()
    for name, value in sums.items():
        made.add(name.replace("_", "/", 1), torch.tensor(value))
    for step, report in enumerate(reports, first):
        failure = skips.note(report, step, made, ONE_RANK)
        if failure is not None:
            raise failure


@pytest.mark.parametrize("model, flag", [("policy", "--actor_learning_rate"), ("critic", "--critic_learning_rate")])
def test_ten_skips_in_a_row_end_the_run(model, flag):
    """Nine do not, nor nine and nine with a step between them; nor what a scale of 2^16 needs to come down to 1."""
    skips = Skips(model, flag)
    note(skips, [*[SKIPPED] * 9, TAKEN, *[SCALED] * 17, *[SKIPPED] * 9, TAKEN, *[SKIPPED] * 9])
    with pytest.raises(RunFailed) as failed:
        note(skips, [SKIPPED], first=47)
    assert str(failed.value).startswith(
        f"step 47: 10 optimizer steps of the {model} in a row were skipped, from step 38"
    )
    assert flag in str(failed.value) and "\n" not in str(failed.value)


@pytest.mark.parametrize(
    "model, sums, cause",
    [
        ("policy", {"loss_policy": 1.0, "loss_kl": NAN}, "loss/kl is not finite"),
        ("policy", {"loss_policy": NAN, "loss_kl": NAN, "kl_ref": NAN}, "loss/kl and loss/policy are not finite"),
        ("policy", {"loss_policy": NAN, "policy_entropy": NAN}, "the policy's log-probabilities are not finite"),
        ("policy", {"loss_policy": 1.0}, "every term of the loss is finite, and the gradient is not"),
        ("critic", {"critic_loss": float("inf"), "policy_entropy": NAN}, "critic/loss is not finite"),
    ],
)
def test_the_cause_is_named(model, sums, cause):
    with pytest.raises(RunFailed, match=f"from step 1 on: {cause}; "):
        note(Skips(model, "--x"), [SKIPPED] * 10, **sums)


def index_of(rows, trained=1):
    """Of (group, reward) pairs, each with so many trained tokens."""
    group, rewards = zip(*rows, strict=True)
    return SimpleNamespace(group=np.array(group), rewards=np.array(rewards), trained=np.full(len(rows), trained))


def seen(*steps, by_prompt=True):
    """(group, reward) pairs of some steps -> the health after them, and what it said of each."""
    health, said = Health(by_prompt), []
    for step, rows in enumerate(steps, 1):
        health.see(index_of(rows))
        said += health.remarks({}, step)
    return health, said


ONES, BY_PROMPT, VARIED = [(0, 1.0), (0, 1.0), (1, 1.0)], [(0, 1.0), (0, 1.0), (1, 0.0)], [(0, 1.0), (0, 0.0), (1, 1.0)]


def test_a_reward_that_never_varies_is_said_at_once_and_at_the_end():
    health, said = seen(ONES, ONES, ONES)
    reason = "every reward was 1; mend --reward_fn, or take easier or harder prompts"
    assert said == [f"warning: step 1 has nothing to learn from: {reason}"]
    assert "in 1 step: every" in next(seen(ONES)[0].verdict())
    [line] = health.verdict()
    assert line.startswith("warning: nothing was learned from the reward in 3 steps: every reward was 1;")


def test_steps_without_a_varied_group_are_said_where_groups_count():
    health, said = seen(BY_PROMPT, BY_PROMPT)
    assert "of a prompt's samples were all equal; raise --n_samples_per_prompt" in said[0] and len(said) == 1
    assert "nothing was learned from the reward in 2 steps" in next(health.verdict())
    health, said = seen(BY_PROMPT, ONES, by_prompt=False)
    assert said == [] and list(health.verdict()) == []
    _, said = seen([(0, 2.0)] * 3, by_prompt=False)
    assert len(said) == 1
    health, said = seen(ONES, [(0, 2.0), (0, 2.0)], by_prompt=False)
    assert "the rewards of a step were all equal" in next(health.verdict())


def test_a_step_that_varies_is_enough_unless_the_last_ten_had_nothing():
    health, said = seen(ONES, VARIED, *[ONES] * 9)
    assert len(said) == 1 and list(health.verdict()) == []
    health, said = seen(VARIED, *[BY_PROMPT] * 12)
    assert len(said) == 1 and said[0].startswith("warning: the last 10 steps had nothing to learn from")
    assert next(health.verdict()).startswith("warning: the last 12 steps")


def test_skipped_steps_are_said_once_a_model():
    health, skipped = Health(by_prompt=True), {"update/skipped_steps": 2.0, "critic/skipped_steps": 0.0}
    health.see(index_of(VARIED))
    assert list(health.remarks({"update/skipped_steps": 0.0}, 1)) == []
    assert list(health.remarks(skipped, 2)) == [
        "warning: step 2: 2 optimizer steps of the policy were skipped, since its gradient was not finite "
        "(update/skipped_steps; said once)"
    ]
    [line] = health.remarks({**skipped, "critic/skipped_steps": 1.0}, 3)
    assert "1 optimizer steps of the critic" in line


def test_a_response_without_a_trained_token_teaches_nothing():
    health = Health(by_prompt=True)
    health.see(index_of([(0, 1.0), (0, 2.0)], trained=0))
    assert "no response had a token to train on" in next(health.remarks({}, 1))


def test_faults_are_said_once_and_remembered_by_a_resumed_run():
    health, again = Health(by_prompt=True), Health(by_prompt=False)
    health.see(index_of([(0, 1.0)]))
    metrics = {"policy/nonfinite_frac": 0.125, "mismatch/nonfinite_frac": 0.0}
    fault, nothing = health.remarks(metrics, 3)
    assert fault.startswith("warning: step 3: 12.50% of the responses have an advantage") and "nothing" in nothing
    again.load_state(json.loads(json.dumps(health.state())))
    again.see(index_of([(0, 1.0)]))
    assert list(again.remarks(metrics, 4)) == [] and again.steps == 2 and not again.by_prompt
    [line] = again.remarks({"mismatch/nonfinite_frac": 0.5}, 5)
    assert "50.00% of the sampled tokens have no finite log-probability" in line


def test_a_state_of_other_fields_sets_the_known_ones_alone():
    health = Health(by_prompt=True)
    health.load_state({"steps": 7, "by_prompt": False, "verdict": "none", "of_another_version": 1})
    assert health == Health(by_prompt=True, steps=7) and list(vars(health)) == list(vars(Health(by_prompt=True)))


@pytest.mark.parametrize("number", [NAN, float("inf"), -float("inf")])
@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("values", "the critic's values are not finite; "),
        ("old_logprobs", "the policy's log-probabilities are not finite; "),
        ("ref_logprobs", "the reference's log-probabilities are not finite; "),
    ],
)
def test_what_blew_up_is_named_and_what_is_masked_is_not_looked_at(batch_of, number, name, cause):
    batch = batch_of([((1, 5), (0, 1))])
    for place, expected in ((1, cause), (0, "all rewards are too large; ")):
        numbers = torch.zeros(1, 2)
        numbers[0, place] = number
        assert str(none_finite(batch.filled(**{name: numbers}), ONE_RANK, 3)).startswith(
            f"step 3: no response has a finite advantage: {expected}"
        )
