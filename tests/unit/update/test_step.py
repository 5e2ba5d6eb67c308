"""The updater against the loss written out over the whole part at once; SGD would hide nothing, so raw gradients."""

from __future__ import annotations

import math

import pytest
import torch
from indexed import indexed
from updates import MODES, PART, counters, full_logprobs, gradient, in_loss, updater, written_out

from lightrft.errors import RunFailed
from lightrft.models.packing import Cost
from lightrft.strategy.base import StepReport
from lightrft.update.partition import Part


@pytest.mark.parametrize("micro", [1, 3, 8])
@pytest.mark.parametrize("kl_coef", [0.0, 0.3])
@pytest.mark.parametrize("mode", MODES)
def test_a_step_has_the_gradient_of_the_whole_part_whatever_its_micro_batches(
    model, batch, alone, mode, kl_coef, micro
):
    wanted_loss = written_out(model, batch, mode, kl_coef)
    wanted_loss.backward()
    wanted = gradient(model)
    model.zero_grad()
    updater(alone, model, micro=micro, mode=mode, kl=in_loss(kl_coef)).step(batch, PART)
    assert (gradient(model) - wanted).norm() < 1e-6 * wanted.norm()  # float32 logits in a float64 model
    assert sum(alone.losses) == pytest.approx(wanted_loss.item(), rel=1e-5)  # as above, with cancellation


def test_sharing_prompts_keeps_the_gradient(model, batch, alone):
    written_out(model, batch, "token-mean", 0.3).backward()
    wanted = gradient(model)
    model.zero_grad()
    free = Cost(per_token=1e9, per_pair=0.0)
    updater(alone, model, micro=4, mode="token-mean", kl=in_loss(0.3), sharing=free).step(batch, PART)
    assert (gradient(model) - wanted).norm() < 1e-6 * wanted.norm()  # as above


def test_on_policy_the_current_logprobs_are_the_old_ones(model, batch, alone):
    written_out(model, batch.filled(old_logprobs=full_logprobs(model, batch).detach()), "token-mean", 0.0).backward()
    wanted = gradient(model)
    model.zero_grad()
    made = updater(alone, model, mode="token-mean")
    made.step(batch.filled(old_logprobs=None), PART)
    # The reference takes its own logprobs as old ones; both ratios are 1 to float32.
    assert (gradient(model) - wanted).norm() < 1e-6 * wanted.norm()
    assert made.report().metrics["policy/clip_frac"] == 0.0


def test_a_step_learns_from_the_rows_of_its_part_only(model, batch, alone):
    updater(alone, model, mode="token-mean").step(batch, Part((0, 3, 4), 0))
    found = gradient(model)
    model.zero_grad()
    updater(alone, model, mode="token-mean").step(indexed(batch.select([0, 3, 4])), Part((0, 1, 2), 0))
    assert (gradient(model) - found).norm() < 1e-6 * found.norm()
    assert [part.rows for part in updater(alone, model).partition(batch, turn=3)] == [tuple(range(8))]


def test_rows_without_advantage_are_left_out_but_keep_their_place_in_the_denominators(model, batch, alone):
    made = updater(alone, model, micro=1)
    made.step(batch, PART)
    # rows 2 and 7 have advantage 0, row 5 no tokens: five passes; with a KL term every row is needed
    # of responses 4 + 1 + 2 + 6 + 5 tokens, of their prompts 2 + 2 + 3 + 3 + 2; of 61 words for 6 tokens, float64
    report, largest = made.report(), 6 * 61 * 8 / 2**20
    assert report.perf == {
        "perf/train_micro_batches": 5.0, "perf/train_tokens": 30.0, "perf/largest_logits_mib": largest
    }  # fmt: skip
    assert report.metrics["update/idle_rows"] == 3.0
    made = updater(alone, model, micro=1, kl=in_loss(0.3))
    made.step(batch, PART)
    assert made.report().perf["perf/train_micro_batches"] == 8.0


def test_a_part_in_which_nothing_moves_still_has_one_backward_pass_of_zero(model, batch, alone):
    made = updater(alone, model)
    made.step(indexed(batch.filled(advantages=torch.zeros_like(batch.advantages))), PART)
    assert alone.losses == [0.0] and bool(gradient(model).eq(0).all())


def test_a_part_without_tokens_is_skipped(model, batch, alone):
    made = updater(alone, model)
    made.step(indexed(batch.filled(response_mask=torch.zeros_like(batch.response_mask))), PART)
    report = made.report()
    assert alone.losses == [] and report.perf == {} and len(report.metrics) == 3
    assert counters(report) == {"optimizer": 1.0, "idle": 1.0, "skipped": 0.0}


def test_a_step_over_nothing_is_not_taken(model, batch, alone):
    """Row 5 has no tokens."""
    made = updater(alone, model)
    for rows in ((5,), (0, 1)):
        made.step(batch, Part(rows, 0))
    report = made.report()
    assert (counters(report), report.taken) == ({"optimizer": 2.0, "idle": 1.0, "skipped": 0.0}, 1.0)


def test_ten_skipped_updates_end_the_run_at_the_next_boundary(model, batch, alone):
    """An advantage that is not finite stands for whatever else may break a gradient."""
    alone.step = lambda handle: StepReport(math.nan, 0.5, skipped=True)
    made = updater(alone, model)
    broken = batch.filled(advantages=batch.advantages.masked_fill(batch.advantages > 1, math.inf))
    for number in range(9):
        made.step(broken, Part(PART.rows, 0, turn=3 + number // 4))
    found = made.report()
    assert (counters(found)["skipped"], found.taken) == (9.0, 0.0) and "policy/grad_norm" not in found.metrics
    made.end_if_failed()
    made.step(broken, Part(PART.rows, 0, turn=5))
    with pytest.raises(RunFailed, match="step 5: 10 optimizer steps .* from step 3 on: loss/policy is not finite"):
        made.end_if_failed()
