from __future__ import annotations

from threading import Thread

import pytest
import torch
from updates import Together, of_rank

from lightrft.ranks.base import ONE_RANK
from lightrft.update.metrics import MetricSums


def test_the_p99_is_that_of_all_tokens_that_are_compared():
    """Of 1 to 200 it is 198: 99 % of them do not exceed it. What is masked, or no number, is none of them."""
    values = torch.arange(1.0, 201.0)[torch.randperm(200)]
    sums = MetricSums()
    for part in values.split(60):
        row = torch.stack([part, torch.full_like(part, 1e6)])
        sums.p99("gap", row, torch.tensor([[1], [0]]).expand_as(row))
    sums.p99("gap", torch.tensor([[float("nan")]]), torch.ones(1, 1))
    assert sums.finish(ONE_RANK).metrics == {"gap": 198.0}


@pytest.mark.parametrize(("n", "wanted"), [(1, 1.0), (2, 2.0), (100, 99.0), (101, 100.0)])
def test_few_tokens(n, wanted):
    sums = MetricSums()
    sums.p99("gap", torch.arange(1.0, n + 1)[None], torch.ones(1, n))
    assert sums.finish(ONE_RANK).metrics["gap"] == wanted


def test_where_nothing_is_compared_it_is_0():
    sums = MetricSums()
    sums.p99("gap", torch.ones(2, 3), torch.zeros(2, 3))
    assert sums.finish(ONE_RANK).metrics == {"gap": 0.0}


def test_a_mean_over_nothing_is_left_out():
    sums = MetricSums()
    for name, mask in (("some", [1, 0]), ("none", [0, 0])):
        sums.mean(name, torch.tensor([2.0, 4.0]), torch.tensor(mask))
    assert sums.finish(ONE_RANK).metrics == {"some": 2.0}


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
