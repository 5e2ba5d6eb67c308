"""The terms of the loss, by hand: weight * selected * policy + beta kl + alpha drift - c entropy."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log
from types import SimpleNamespace

import pytest
import torch

from lightrft.algorithms.control import KLController
from lightrft.algorithms.estimator import load_estimator
from lightrft.algorithms.importance import KINDS
from lightrft.args.groups.algorithm import AlgorithmArgs
from lightrft.update.kl import KLTerm
from lightrft.update.loss import LossTerms

FLOAT32 = {"rtol": 1e-6, "atol": 1e-7}
OFF = KLTerm("off", KLController(0.0))


def on_response(*values):
    """[1, 5]: two prompt tokens, three trained ones."""
    return torch.tensor([[0.0, 0.0, *values]])


@pytest.fixture
def batch(batch_of):
    """Engine and trainer differ by factors of 1.5, 4 and 1/2; the advantage is 2 throughout."""
    old = on_response(-1.0, -2.0, -3.0)
    return batch_of([((1, 2, 3, 4, 5), (0, 0, 1, 1, 1))]).filled(
        old_logprobs=old, rollout_logprobs=old - on_response(log(1.5), log(4), log(0.5)),
        ref_logprobs=old - on_response(0.4, 0.0, -0.2), advantages=on_response(2.0, 2.0, 2.0),
        entropy=on_response(0.1, 0.9, 0.5),
    )  # fmt: skip


def terms_of(batch, estimator="group_norm", kl=OFF, *, moved=0.0, fire=False, **flags):
    """The policy is `moved` from the old one in log-probability at every trained token."""
    mask = batch.response_mask
    scores = SimpleNamespace(logprobs=batch.old_logprobs + moved * mask, entropy=on_response(0.3, 0.2, 0.1))
    return LossTerms(load_estimator(estimator), kl, AlgorithmArgs(**flags), fire=fire)(batch, scores)


def expect(term, coefficient, *tokens):
    assert term[0] == coefficient
    torch.testing.assert_close(term[1], on_response(*tokens), **FLOAT32)


def test_weights_and_the_selection_multiply_the_policy_term(batch):
    """On policy each token's loss is -2; the weight 4 is held at 2."""
    expect(terms_of(batch).weighted["loss/policy"], 1.0, -3.0, -4.0, -1.0)
    chosen = batch.filled(selected=torch.tensor([[0, 0, 1, 0, 1]]))
    expect(terms_of(chosen).weighted["loss/policy"], 1.0, -3.0, 0.0, -1.0)
    expect(terms_of(batch, is_correction="off").weighted["loss/policy"], 1.0, -2.0, -2.0, -2.0)


@pytest.mark.parametrize("estimator", ["gspo", "gspo_token", "gmpo"])
def test_a_response_of_one_ratio_has_one_weight(batch, estimator):
    """The geometric mean of 1.5, 4 and 1/2."""
    expect(terms_of(batch, estimator).weighted["loss/policy"], 1.0, *[-2 * 3 ** (1 / 3)] * 3)


def test_a_hot_first_token_is_not_compared(batch):
    """Its weight is 1, and the gaps are those of the other two: ln 4 and ln 2."""
    found = terms_of(batch, fire=True)
    expect(found.weighted["loss/policy"], 1.0, -2.0, -4.0, -1.0)
    assert found.compared.tolist() == [[0, 0, 0, 1, 1]]
    torch.testing.assert_close(found.mismatch["mismatch/gap_mean"], on_response(0.0, log(4), log(2)), **FLOAT32)
    assert found.mismatch["mismatch/clip_frac"].tolist() == [[0, 0, 0, 1, 0]]
    assert terms_of(batch).compared.tolist() == [[0, 0, 1, 1, 1]]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("estimator", ["group_norm", "gspo"])
def test_a_token_for_which_the_engine_has_no_number_is_not_compared(batch, estimator, kind, bad):
    """All is as if the engine had said what the trainer says: a gap of 0 and a weight of 1. And it is counted."""
    second = torch.tensor([[False, False, False, True, False]])
    given = {"is_correction": kind, "is_low": 0.5}
    found = terms_of(batch.filled(rollout_logprobs=batch.rollout_logprobs.masked_fill(second, bad)), estimator, **given)
    agreed = terms_of(
        batch.filled(rollout_logprobs=batch.rollout_logprobs.where(~second, batch.old_logprobs)), estimator, **given
    )
    expect(found.weighted["loss/policy"], 1.0, *agreed.weighted["loss/policy"][1][0, 2:].tolist())
    assert found.compared.tolist() == [[0, 0, 1, 0, 1]]
    assert (found.token_metrics["mismatch/nonfinite_frac"] * batch.response_mask).tolist() == [[0, 0, 0, 1, 0]]
    for name, values in found.mismatch.items():
        torch.testing.assert_close(values, agreed.mismatch[name])


def test_the_kl_term_is_not_weighed(batch):
    """k2 of 0.4, 0 and -0.2; each with the coefficient of its place."""
    in_loss = terms_of(batch, kl=KLTerm("loss", KLController(0.3)), kl_estimator="k2")
    expect(in_loss.weighted["loss/kl"], 0.3, 0.08, 0.0, 0.02)
    elsewhere = terms_of(batch, kl=KLTerm("reward", KLController(0.3)), kl_estimator="k2")
    assert elsewhere.weighted.keys() == {"loss/policy"}
    torch.testing.assert_close(elsewhere.token_metrics["kl/ref"], on_response(0.08, 0.0, 0.02), **FLOAT32)


def test_the_drift_and_the_kl_beside_it(batch):
    """The policy is ln 1.1 above the old one: a drift of 0.1 ln 1.1; and 0.4 + ln 1.1, ... above the reference."""
    kl = KLTerm("drift", KLController(0.05), beside=0.2)
    found = terms_of(batch, "cpgd", kl, moved=log(1.1), kl_estimator="k1").weighted
    expect(found["loss/drift"], 0.05, *[0.1 * log(1.1)] * 3)
    expect(found["loss/kl"], 0.2, *(log(1.1) + d for d in (0.4, 0.0, -0.2)))
    expect(found["loss/policy"], 1.0, *(-2 * log(1.1) * w for w in (1.5, 2.0, 0.5)))


def test_entropy_is_a_bonus(batch):
    assert "loss/entropy" not in terms_of(batch).weighted
    expect(terms_of(batch, entropy_coef=0.5).weighted["loss/entropy"], -0.5, 0.3, 0.2, 0.1)


@pytest.mark.parametrize("ratio, chosen", [(0.3, [0, 0, 0]), (0.7, [0, 1, 0]), (0.0, None), (1.0, None)])
def test_the_tokens_of_highest_entropy_of_all_ranks(batch, ratio, chosen):
    """0.1, 0.9, 0.5 here and 0.95, 0.97 elsewhere: the 0.7-quantile is 0.9 + 0.8 (0.95 - 0.9) = 0.94, the 0.3-quantile
    0.5 + 0.2 (0.9 - 0.5) = 0.58. Of these three alone they would be 0.66 and 0.34."""
    terms = LossTerms(load_estimator("group_norm"), OFF, AlgorithmArgs(high_entropy_token_ratio=ratio))
    two_ranks = SimpleNamespace(concatenate=lambda local: torch.cat([local, local.new_tensor([0.95, 0.97])]))
    found = terms.select_tokens(batch, [0], two_ranks)
    assert found.has("selected") == (chosen is not None)
    measured = terms_of(found).token_metrics
    assert ("policy/high_entropy_frac" in measured) == (chosen is not None)
    if chosen is not None:
        assert found.selected.tolist() == measured["policy/high_entropy_frac"].tolist() == [[0, 0, *chosen]]


def test_the_mismatch_by_hand(batch):
    found = terms_of(batch, is_cap=2.0).mismatch
    gaps = (log(1.5), log(4), log(0.5))
    torch.testing.assert_close(found["mismatch/gap_mean"], on_response(*map(abs, gaps)), **FLOAT32)
    torch.testing.assert_close(found["mismatch/kl"], on_response(*(exp(w) - 1 - w for w in gaps)), **FLOAT32)
    torch.testing.assert_close(found["mismatch/weight_mean"], on_response(1.5, 2.0, 0.5), **FLOAT32)
    torch.testing.assert_close(found["mismatch/weight_square"], on_response(2.25, 4.0, 0.25), **FLOAT32)


def test_a_row_without_advantage_is_run_where_something_else_learns_from_it():
    """An estimator need not say so: a drift, a critic, a KL term and an entropy bonus are known to the trainer."""

    def skips(kl=OFF, flags=None, **changes):
        estimator = replace(load_estimator("group_norm"), **changes)
        return LossTerms(estimator, kl, AlgorithmArgs(**(flags or {}))).skips_rows_without_advantage

    assert skips() and not skips(idle_without_advantage=False)
    assert not skips(drift=load_estimator("cpgd").drift) and not skips(needs={"critic"})
    assert not skips(KLTerm("loss", KLController(0.1))) and not skips(flags={"entropy_coef": 0.1})
    assert not any(
        LossTerms(load_estimator(name), OFF, AlgorithmArgs()).skips_rows_without_advantage for name in ("gae", "cpgd")
    )


def test_the_drift_is_measured_whatever_an_own_loss_measures(batch):
    """The policy is ln 1.1 above the old one: 1.1 - 1 - ln 1.1."""
    cpgd = load_estimator("cpgd")
    silent = replace(cpgd, policy_loss=lambda *given: replace(cpgd.policy_loss(*given), metrics={}))
    scores = SimpleNamespace(
        logprobs=batch.old_logprobs + log(1.1) * batch.response_mask, entropy=on_response(0, 0, 0.0)
    )
    found = LossTerms(silent, KLTerm("drift", KLController(0.05)), AlgorithmArgs())(batch, scores).token_metrics
    torch.testing.assert_close(found["kl/drift"], on_response(*[0.1 - log(1.1)] * 3), **FLOAT32)
