"""What a step reports of the tokens that it learned from."""

from __future__ import annotations

import copy
import math
from threading import Thread

import pytest
from indexed import indexed
from updates import PART, Together, full_logprobs, in_loss, of_rank, updater

from lightrft.algorithms.control import KLController
from lightrft.update.kl import KLTerm
from lightrft.update.partition import Part


def test_metrics_are_sums_over_tokens_divided_once(model, batch, alone):
    made = updater(alone, model, micro=3, kl=in_loss(0.3))
    made.step(batch, PART)
    found, mask = made.report().metrics, batch.response_mask.double()
    logprobs = full_logprobs(model, batch).detach()
    d, ref = (logprobs - old for old in (batch.old_logprobs, batch.ref_logprobs))
    high, low = (batch.advantages > 0) & (d.exp() > 1.3), (batch.advantages < 0) & (d.exp() < 0.8)
    assert high.any() and low.any()
    wanted = {
        "policy/clip_frac_high": high,
        "policy/clip_frac_low": low,
        "policy/approx_kl": d.exp() - 1 - d,
        "kl/ref": (-ref).exp() - 1 + ref,
    }
    for name, values in wanted.items():
        assert found[name] == pytest.approx(((values * mask).sum() / mask.sum()).item(), rel=1e-5), name  # float32
    assert found["mismatch/gap_mean"] == pytest.approx(0.125, rel=1e-6) == found["mismatch/gap_max"]
    assert found["mismatch/kl"] == pytest.approx(math.exp(0.125) - 1 - 0.125, rel=1e-6)
    assert found["loss/policy"] + found["loss/kl"] == pytest.approx(sum(alone.losses), rel=1e-6)
    assert (found["policy/grad_norm"], found["policy/lr"]) == (2.0, 0.5)


def test_the_drift_is_that_of_the_last_optimizer_step(model, batch, alone):
    """The coefficient adapts to how far the policy has come, not to how far it was on the way."""
    drift = KLTerm("drift", KLController(0.1))
    halves = [Part(tuple(range(4)), 0), Part(tuple(range(4, 8)), 0)]
    found = []
    for parts in (halves, halves[1:]):
        made = updater(alone, model, kl=drift, name="cpgd")
        for part in parts:
            made.step(batch, part)
        found.append(made.report().metrics)
    assert found[0]["kl/drift"] == pytest.approx(found[1]["kl/drift"], rel=1e-6)
    assert found[0]["policy/approx_kl"] != pytest.approx(found[1]["policy/approx_kl"], rel=1e-2)


@pytest.mark.parametrize("cap, changed", [(2.0, 0.0), (1.1, 1.0)])
def test_the_share_of_weights_that_a_bound_changes(model, batch, alone, cap, changed):
    """Every weight is exp(0.125) = 1.133."""
    made = updater(alone, model, is_correction="token_truncate", is_cap=cap)
    made.step(batch, PART)
    found = made.report().metrics
    assert (found["mismatch/clip_frac"], found["mismatch/ess"]) == (changed, pytest.approx(1.0))
    assert found["mismatch/weight_mean"] == pytest.approx(min(cap, math.exp(0.125)), rel=1e-6)


def test_where_nothing_moves_the_first_row_with_tokens_is_run_for_the_metrics(model, batch, alone):
    """Rank 0 has the row without tokens, rank 1 rows of advantage 0: its row 2 is run, and no other."""
    together, reports = Together(2), {}
    owner = [0 if row == 5 else 1 for row in range(8)]

    def run(rank):
        made = updater(of_rank(alone, rank, together), copy.deepcopy(model), micro=1)
        made.step(indexed(batch, owner, rank), Part((2, 5, 7), 0))
        reports[rank] = made.report()

    threads = [Thread(target=run, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    logprobs = full_logprobs(model, batch).detach()[2, batch.response_mask[2].bool()]
    gap = (batch.old_logprobs[2, batch.response_mask[2].bool()] - logprobs).double().mean().item()
    assert reports[0].metrics == reports[1].metrics
    assert reports[0].metrics["policy/approx_kl_k1"] == pytest.approx(gap, rel=1e-5)
    assert reports[0].metrics["update/idle_rows"] == 3.0


def test_the_mismatch_is_that_of_the_compared_tokens(model, batch, alone):
    """Under FIRE the first tokens are not compared, and no token for which the engine has no number."""
    far = batch.rollout_logprobs - 3.0 * batch.first_tokens
    second = batch.first_tokens.roll(1, -1) & (batch.response_mask == 1)
    made = updater(alone, model, is_correction="token_truncate", fire=True)
    made.step(batch.filled(rollout_logprobs=far.masked_fill(second, math.nan)), PART)
    found = made.report().metrics
    assert found["mismatch/gap_mean"] == pytest.approx(0.125, rel=1e-6) == found["mismatch/gap_max"]
    assert found["mismatch/weight_mean"] == pytest.approx(math.exp(0.125), rel=1e-6)
    # rows 2, 5 and 7 are not run; rows 0, 3 and 4, 6 have a second token, of 4 + 1 + 2 + 6 + 5
    assert found["mismatch/nonfinite_frac"] == pytest.approx(4 / 18)
    assert all(math.isfinite(value) for value in found.values())
