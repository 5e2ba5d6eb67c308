"""The updater against the loss written out over the whole part at once; SGD would hide nothing, so raw gradients."""

from __future__ import annotations

import copy
import math
from threading import Barrier, Thread
from types import SimpleNamespace

import pytest
import torch
from indexed import indexed

from lightrft.algorithms.control import KLController
from lightrft.algorithms.estimator import load_estimator
from lightrft.args.groups.algorithm import AlgorithmArgs
from lightrft.errors import RunFailed
from lightrft.models.packing import Cost
from lightrft.models.token_model import TokenModel
from lightrft.ranks.base import ONE_RANK
from lightrft.strategy.base import Handle, StepReport
from lightrft.update.kl import KLTerm
from lightrft.update.metrics import MetricSums
from lightrft.update.partition import Part
from lightrft.update.step import Updater, UpdateSettings

MODES = ["token-mean", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm", "prompt-mean-token-mean"]
LENGTHS, GROUPS = [4, 1, 3, 2, 6, 0, 5, 1], [0, 0, 0, 1, 1, 1, 2, 2]
ADVANTAGES = [1.0, -0.5, 0.0, 2.0, -1.0, 1.0, -2.0, 0.0]
PART = Part(tuple(range(8)), 0)
OFF = KLTerm("off", KLController(0.0))


@pytest.fixture
def model(causal_model):
    return copy.deepcopy(causal_model("llama")).double()


@pytest.fixture
def batch(batch_of, model):
    """Eight rows of three prompts; old log-probabilities 0.2 off in both directions, so that some are clipped."""
    draw = torch.Generator().manual_seed(4)
    rows = []
    for group, length in zip(GROUPS, LENGTHS, strict=True):
        prompt = [1, 10 + group, 20 + group][: 2 + group % 2]
        response = torch.randint(3, 61, (length,), generator=draw).tolist()
        rows.append(((*prompt, *response), (0,) * len(prompt) + (1,) * length))
    made = batch_of(rows, group=torch.tensor(GROUPS), temperature=0.9)
    logprobs = full_logprobs(model, made).detach()
    noise = 0.4 * torch.randn(logprobs.shape, generator=draw, dtype=torch.float64)
    advantages = torch.tensor(ADVANTAGES)[:, None] * made.response_mask
    made = made.filled(
        old_logprobs=logprobs + noise, ref_logprobs=logprobs - 2 * noise, advantages=advantages,
        rollout_logprobs=logprobs + noise - 0.125,
    )  # fmt: skip
    return indexed(made)


def full_logprobs(model, batch):
    """[B, T] from a log_softmax over all positions."""
    logits = model(input_ids=batch.input_ids).logits.float() / batch.temperature
    picked = logits.log_softmax(-1)[:, :-1].gather(-1, batch.input_ids[:, 1:, None])[..., 0].double()
    return torch.cat([torch.zeros(len(batch), 1), picked], 1)


def written_out(model, batch, mode, kl_coef):
    """The loss of the part by its definition, row by row."""
    logprobs = full_logprobs(model, batch)
    per_row, total = [], logprobs.sum() * 0
    for row in range(len(batch)):
        at = batch.response_mask[row].bool()
        ratio = (logprobs[row, at] - batch.old_logprobs[row, at]).exp()
        a = batch.advantages[row, at]
        loss = -torch.minimum(ratio * a, ratio.clamp(0.8, 1.3) * a)
        d = logprobs[row, at] - batch.ref_logprobs[row, at]
        per_row.append(loss + kl_coef * ((-d).exp() - 1 + d))
    for row, loss in enumerate(per_row):
        n = max(len(loss), 1)
        group = sum(LENGTHS[other] for other in range(8) if GROUPS[other] == GROUPS[row])
        share = {
            "token-mean": 1 / sum(LENGTHS),
            "seq-mean-token-sum": 1 / 7,
            "seq-mean-token-mean": 1 / (7 * n),
            "seq-mean-token-sum-norm": 1 / (8 * 16),
            "prompt-mean-token-mean": 1 / (3 * group),
        }[mode]
        total = total + share * loss.sum()
    return total


def gradient(model):
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in model.parameters()])


def updater(
    strategy,
    model,
    *,
    micro=2,
    mode=MODES[2],
    kl=OFF,
    sharing=None,
    part_size=8,
    name="group_norm",
    fire=False,
    chunk=None,
    **flags,
):
    settings = UpdateSettings(
        algorithm=AlgorithmArgs(**{"is_correction": "off", **flags}), aggregation=mode, seed=0,
        max_epochs=1, max_new_tokens=16,
        batch=SimpleNamespace(
            train_batch_size=part_size, micro_train_batch_size=micro, max_tokens_per_micro_batch=None
        ), fire=fire,
    )  # fmt: skip
    return Updater(strategy, TokenModel(Handle(model, model), sharing, chunk=chunk), load_estimator(name), kl, settings)


def counters(report):
    return {kind: report.metrics[f"update/{kind}_steps"] for kind in ("optimizer", "idle", "skipped")}


def in_loss(coefficient):
    return KLTerm("loss", KLController(coefficient))


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


def test_a_step_over_nothing_is_not_taken(model, batch, alone):
    """Row 5 has no tokens."""
    made = updater(alone, model)
    for rows in ((5,), (0, 1)):
        made.step(batch, Part(rows, 0))
    report = made.report()
    assert (counters(report), report.taken) == ({"optimizer": 2.0, "idle": 1.0, "skipped": 0.0}, 1.0)


def test_a_mean_over_nothing_is_left_out():
    sums = MetricSums()
    for name, mask in (("some", [1, 0]), ("none", [0, 0])):
        sums.mean(name, torch.tensor([2.0, 4.0]), torch.tensor(mask))
    assert sums.finish(ONE_RANK).metrics == {"some": 2.0}


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


class Together:
    """Threads of this process as ranks: what one gathers or reduces waits for the others."""

    def __init__(self, size):
        self.barrier, self.slots = Barrier(size, timeout=60), [None] * size

    def exchange(self, rank, mine):
        self.slots[rank] = mine
        self.barrier.wait()
        found = list(self.slots)
        self.barrier.wait()
        return found


def of_rank(alone, rank, together):
    """A strategy like `alone`, of one rank of several."""

    def reduce(values, op="sum"):
        shares = together.exchange(rank, dict(values))
        assert all(list(share) == list(values) for share in shares), "all ranks reduce the same, in one order"
        return {name: (sum if op == "sum" else max)(share[name] for share in shares) for name in values}

    def gather(items):
        return [item for share in together.exchange(rank, list(items)) for item in share]

    made = copy.copy(alone)
    made.losses, made.ranks = [], SimpleNamespace(rank=rank, size=2, reduce=reduce, gather=gather)
    return made


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


def test_a_step_learns_from_the_rows_of_its_part_only(model, batch, alone):
    updater(alone, model, mode="token-mean").step(batch, Part((0, 3, 4), 0))
    found = gradient(model)
    model.zero_grad()
    updater(alone, model, mode="token-mean").step(indexed(batch.select([0, 3, 4])), Part((0, 1, 2), 0))
    assert (gradient(model) - found).norm() < 1e-6 * found.norm()
    assert [part.rows for part in updater(alone, model).partition(batch, turn=3)] == [tuple(range(8))]


def test_metric_sums_by_hand():
    sums, t = MetricSums(), torch.tensor
    sums.count("update/optimizer_steps", 1.0)
    sums.mean("kl", t([[1.0, 2.0, 50.0]]), t([[1, 1, 0]]))
    sums.mean("kl", t([[6.0, 7.0, 8.0]]), t([[1, 0, 0]]))  # (1 + 2 + 6) / 3, and not the mean of 1.5 and 6
    sums.add("loss", t(0.5))
    sums.add("loss", t(1.5))
    sums.count("update/optimizer_steps", 1.0)
    sums.add("loss", t(2.0))  # two steps of 2 each
    sums.largest("gap", t(3.0))
    sums.largest("gap", t(1.0))
    sums.average("lr", 1.0)
    sums.average("lr", 4.0)
    sums.count("perf/rows", 2.0)
    sums.count("perf/rows", 3.0)
    report = sums.finish(ONE_RANK)
    assert report.metrics == {"kl": 3.0, "loss": 2.0, "gap": 3.0, "lr": 2.5, "update/optimizer_steps": 2.0}
    assert report.perf == {"perf/rows": 5.0}


def test_metric_sums_are_reduced_before_they_are_divided():
    class Twice:
        """A second rank with the same sums, and a larger maximum."""

        def gather(self, items):
            return [*items, *items]

        def reduce(self, values, op="sum"):
            return {name: value * 2 if op == "sum" else value + 1 for name, value in values.items()}

    sums = MetricSums()
    sums.count("update/optimizer_steps", 1.0)
    sums.mean("kl", torch.tensor([1.0, 2.0]), torch.tensor([1, 1]))
    sums.add("loss", torch.tensor(0.5))
    sums.largest("gap", torch.tensor(3.0))
    wanted = {"kl": 1.5, "loss": 1.0, "gap": 4.0, "update/optimizer_steps": 1.0}
    assert sums.finish(Twice()).metrics == wanted, "counters are the same on every rank"


def test_a_metric_that_one_rank_alone_has_measured_is_that_rank_s(alone):
    """An own loss may measure only where a token trains: the other rank had none."""
    together, found = Together(2), {}

    def run(rank):
        sums = MetricSums()
        if rank:
            sums.mean("a/own", torch.tensor([4.0]), torch.tensor([1]))
            sums.largest("b/own", torch.tensor(-3.0))
        sums.mean("loss", torch.tensor([2.0]), torch.tensor([1]))
        found[rank] = sums.finish(of_rank(alone, rank, together).ranks).metrics

    threads = [Thread(target=run, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1] == {"a/own": 4.0, "b/own": -3.0, "loss": 2.0}
