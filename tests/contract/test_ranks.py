"""Any split of a rollout step into ranks and micro-batches takes the same steps, for every estimator (S5, S17.2)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from launch import launch
from policies import largest_difference, save_critic
from ranks import CASES, Case, turn


@pytest.fixture(scope="module")
def critic(tmp_path_factory) -> str:
    return str(save_critic(tmp_path_factory.mktemp("critic")))


@pytest.fixture(scope="module")
def alone(world, critic):
    """case -> parameters and metrics of one process that has all rows, in one micro-batch a step."""
    found = {}

    def run(case: Case):
        whole = replace(case, micro=4)
        if whole not in found:
            found[whole] = turn(world, whole, critic)
        return found[whole]

    return run


@pytest.fixture(scope="module", params=(2, 3))
def dealt(request, critic, tmp_path_factory):
    """What all cases gave on so many real processes, over gloo, in one launch."""
    out = tmp_path_factory.mktemp("ranks") / "found.pt"
    launch("ranks.py", request.param, out, critic, seconds=300)
    return torch.load(out)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.estimator} {case.strategy} {case.more}".strip())
def test_ranks_and_micro_batches_do_not_matter(case, dealt, alone):
    place = CASES.index(case)
    parameters, metrics = dealt["parameters"][place], dealt["metrics"][0][place]
    before, wanted, wanted_metrics = alone(case)
    moved = largest_difference(wanted, before)
    assert moved > 1e-3, "the turn must move the parameters, or it shows nothing"
    bound = 1e-6 if case.strategy == "float64" else 1e-4  # float32 parameters of size 1, moved by some 1e-2
    assert largest_difference(parameters, wanted) < bound * moved
    assert metrics == pytest.approx(wanted_metrics, rel=1e-5, abs=1e-6)  # float32


def test_all_ranks_report_the_same_numbers(dealt):
    first, *others = dealt["metrics"]
    assert others
    for other in others:
        assert other == first


def test_what_keeps_a_run_from_learning_is_looked_for_on_all_ranks(dealt):
    """Rewards that differ from rank to rank alone do differ, and what blew up on one rank is named by all of them."""
    for said in dealt["said"]:
        no_advantage, skipped = said
        assert no_advantage.startswith("step 2: no response has a finite advantage: the policy's log-probabilities are")
        assert "10 optimizer steps of the policy in a row were skipped, from step 1 on: loss/policy is not" in skipped


def test_a_sync_that_fails_on_one_rank_of_an_engine_fails_on_both_and_leaves_none_waiting(tmp_path):
    launch("shared_engine.py", 2, tmp_path / "heard.pt", seconds=60)
    heard = torch.load(tmp_path / "heard.pt")
    assert heard == dict.fromkeys(("in parts", "of the first rank"), ["EngineFailed: its memory is full"] * 2)
