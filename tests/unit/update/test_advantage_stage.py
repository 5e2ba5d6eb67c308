"""The stage from rewards to advantages, and where a KL term stands."""

from __future__ import annotations

import pytest
import torch
from indexed import indexed

from lightrft.algorithms.control import KLController
from lightrft.algorithms.estimator import AdvantageSettings, load_estimator
from lightrft.args import parse
from lightrft.errors import RunFailed
from lightrft.ranks.base import ONE_RANK
from lightrft.recipe import kl_term
from lightrft.update.advantages import AdvantageStage, ShapingSettings
from lightrft.update.kl import KLTerm

BASE = "--pretrain x --prompt_data a.jsonl --reward_fn exact --save_path o --rollout_batch_size 4 --train_batch_size 16"


def stage(estimator: str, whiten: bool = False, **shaping) -> AdvantageStage:
    kl = KLTerm("off", KLController(0.0))
    return AdvantageStage(
        ONE_RANK, load_estimator(estimator), kl, ShapingSettings(8, **shaping), AdvantageSettings(whiten=whiten)
    )


def rows(batch_of, rewards, truncated):
    """One prompt token and one response token each."""
    return batch_of(
        [((1, 5), (0, 1))] * len(rewards),
        rewards=torch.tensor(rewards, dtype=torch.float64),
        group=torch.zeros(len(rewards), dtype=torch.long),
        truncated=torch.tensor(truncated),
    )


def test_truncated_rows_count_in_their_group_and_not_in_the_whitening(batch_of):
    """Rewards 0, 1, 5 with mean 2: centred -2, -1, 3. The third is cut off: -2 and -1 whiten to -1 and 1."""
    batch = rows(batch_of, [0.0, 1.0, 5.0], [False, False, True])
    found, _ = stage("reinforce_baseline", whiten=True, overlong_filter=True)(batch)
    assert found.advantages[:, 1].tolist() == pytest.approx([-1.0, 1.0, 0.0], rel=1e-6)  # float32
    assert found.response_mask[:, 1].tolist() == [1, 1, 0]
    kept, _ = stage("reinforce_baseline", overlong_filter=False)(batch)
    assert kept.advantages[:, 1].tolist() == [-2.0, -1.0, 3.0]


def test_a_hot_first_token_can_be_left_out(batch_of):
    """Rewards 1 and 3 less their mean: -1 and 1, on the tokens after the first; the first row has only that one."""
    batch = batch_of(
        [((1, 5), (0, 1)), ((1, 2, 5, 6, 7), (0, 0, 1, 1, 1))], rewards=torch.tensor([1.0, 3.0], dtype=torch.float64),
        group=torch.zeros(2, dtype=torch.long),
    )  # fmt: skip
    found, _ = stage("dr_grpo", mask_first=True)(batch)
    assert found.response_mask.tolist() == [[0, 0, 0, 0, 0], [0, 0, 0, 1, 1]]
    assert found.advantages.tolist() == [[0, 0, 0, 0, 0], [0, 0, 0, 1, 1]]
    assert batch.first_tokens.tolist() == [[False, True, False, False, False], [False, False, True, False, False]]


def test_overlong_filter_and_first_token_mask_together(batch_of):
    """The second row was cut off; of the first the token after the hot one is left."""
    batch = batch_of([((1, 5, 6), (0, 1, 1))] * 2, truncated=torch.tensor([False, True]))
    found, _ = stage("reinforce", mask_first=True, overlong_filter=True)(batch)
    assert found.response_mask.tolist() == [[0, 0, 1], [0, 0, 0]]


def test_a_response_that_float32_cannot_hold_is_counted_and_said(batch_of):
    """A punishment of 1e39 for the last response alone, whose length is the whole budget."""
    batch = batch_of(
        [((1, 5), (0, 1))] * 3 + [((1, *[5] * 8), (0, *[1] * 8))], rewards=torch.ones(4, dtype=torch.float64),
        truncated=torch.tensor([False, False, False, True]),
    )  # fmt: skip
    made = stage("reinforce", overlong_buffer=1, overlong_factor=1e39)
    found, metrics = made(batch)
    assert metrics["policy/nonfinite_frac"] == 0.25 and found.response_mask.sum(-1).tolist() == [1, 1, 1, 0]
    assert found.advantages[:, 1].tolist() == [1.0, 1.0, 1.0, 0.0]
    assert "25.00% of the responses have an advantage that is no number" in next(made.health.remarks(metrics, 1))


def test_a_kl_that_is_no_number_spoils_its_own_response_alone(batch_of):
    zero = torch.zeros(3, 2)
    made = stage("reinforce", whiten=True)
    made.kl = KLTerm("reward", KLController(0.5))
    bad = zero.index_fill(0, torch.tensor([1]), float("nan"))
    found, metrics = made(rows(batch_of, [1.0, 2.0, 3.0], [False] * 3).filled(old_logprobs=zero, ref_logprobs=bad))
    assert found.advantages[:, 1].tolist() == [-1.0, 0.0, 1.0] and found.response_mask[:, 1].tolist() == [1, 0, 1]
    assert metrics["policy/nonfinite_frac"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    "name, bad, cause",
    [
        ("gae", {"values": float("nan")}, "the critic's values are not finite; lower --critic_learning_rate"),
        ("reinforce", {"ref_logprobs": float("nan")}, "the reference's log-probabilities are not finite"),
        ("reinforce", {"old_logprobs": float("nan")}, "the policy's log-probabilities are not finite"),
        ("reinforce", {"rewards": 1e39}, "all rewards are too large"),
    ],
)
def test_a_step_without_one_finite_advantage_ends_the_run(batch_of, name, bad, cause):
    batch, zero = rows(batch_of, [1.0, 2.0, 3.0], [False] * 3), torch.zeros(3, 2)
    batch = batch.filled(values=zero, old_logprobs=zero, ref_logprobs=zero)
    made = stage(name, whiten=True)
    made.kl = KLTerm("reward", KLController(0.5))
    made(batch)
    with pytest.raises(RunFailed, match=f"step 2: no response has a finite advantage: {cause}"):
        made(indexed(batch.filled(**{field: getattr(batch, field) * 0 + value for field, value in bad.items()})))


def test_shaping_comes_in_its_order(batch_of):
    """Lengths 1 of a budget of 8 with a buffer of 8: -1/8 each; divided by the deviation 2 of -1/8, 15/8, 31/8; then
    the clip at 1.5."""
    batch = rows(batch_of, [0.0, 2.0, 4.0], [False] * 3)
    made = stage("dr_grpo", overlong_buffer=8, running_norm=True, reward_clip=1.5)
    found, metrics = made(batch)
    assert found.rewards.tolist() == [-0.0625, 0.9375, 1.5]
    assert metrics["reward/overlong"] == -0.125 and metrics["reward/clip_frac"] == pytest.approx(1 / 3)
    again = stage("dr_grpo", overlong_buffer=8, running_norm=True)
    again.load_state(made.state())
    assert again.moments == made.moments and made.moments.count == 3


@pytest.mark.parametrize(
    "flags, place, in_loss, in_reward",
    [
        ("", "loss", 0.001, 0.0),
        ("--advantage_estimator reinforce", "reward", 0.0, 0.001),
        ("--advantage_estimator reinforce --use_kl_loss", "loss", 0.001, 0.0),
        ("--advantage_estimator cpgd", "drift", 0.0, 0.0),
        ("--advantage_estimator cpgd --use_kl_loss", "drift", 0.001, 0.0),
        ("--init_kl_coef 0", "loss", 0.0, 0.0),
    ],
)
def test_exactly_one_place(flags: str, place: str, in_loss: float, in_reward: float):
    args = parse(f"{BASE} {flags}".split())
    term = kl_term(args)
    assert (term.place, term.in_loss, term.at("reward")) == (place, in_loss, in_reward)
    assert term.needs_reference == (in_loss + in_reward > 0)


def test_a_drift_adapts_only_where_a_second_step_was_taken():
    """A drift of 0 lowers the coefficient by a fifth at the whole horizon, but not below a tenth of the first one."""
    term = kl_term(parse(f"{BASE} --advantage_estimator cpgd".split()))
    for taken, after in ((1, 0.001), (0, 0.001), (2, 0.0008), (1, 0.0008)):
        term.after_step({"kl/drift": 0.0, "kl/ref": 9.0}, 10000, taken)
        assert term.at("drift") == pytest.approx(after)
    for _ in range(30):
        assert term.after_step({"kl/drift": 0.0}, 10000, 2).keys() == {"kl/coef_drift"}
    assert term.at("drift") == pytest.approx(0.0001)


@pytest.mark.parametrize(
    "saved, now, coefficient",
    [
        ("--kl_target 1", "--kl_target 1", 0.0012),
        ("--kl_target 1", "--kl_target 0.1", 0.0012),
        ("--kl_target 1", "", 0.001),
        ("--kl_target 1", "--kl_target 1 --init_kl_coef 0.5", 0.5),
        ("--kl_target 1", "--kl_target 1 --init_kl_coef 0", 0.0),
        ("--init_kl_coef 0", "--init_kl_coef 0.5", 0.5),
        ("--init_kl_coef 0.01", "--init_kl_coef 0", 0.0),
        ("--kl_target 1", "--kl_target 1 --advantage_estimator reinforce", 0.001),
    ],
)
def test_a_resumed_run_goes_on_adapting_unless_its_flags_say_something_else(saved, now, coefficient):
    first, again = (kl_term(parse(f"{BASE} {flags}".split())) for flags in (saved, now))
    first.after_step({"kl/ref": 9.0}, 10000, 1)  # an error of 0.2 at the whole horizon, where there is a target
    again.load_state(first.state())
    assert again.controller.coefficient == pytest.approx(coefficient)


def test_a_kl_in_the_reward_reaches_the_advantages(batch_of):
    """log pi - log pi_ref is 0.2 at the one response token: 1 - 0.5 * 0.2 = 0.9 (k1, float32)."""
    batch = rows(batch_of, [1.0], [False])
    zero = torch.zeros_like(batch.response_mask, dtype=torch.float32)
    made = stage("reinforce")
    made.kl = KLTerm("reward", KLController(0.5))
    found, _ = made(batch.filled(old_logprobs=zero - 0.1, ref_logprobs=zero - 0.3))
    assert found.advantages[:, 1].tolist() == pytest.approx([0.9], rel=1e-6)
