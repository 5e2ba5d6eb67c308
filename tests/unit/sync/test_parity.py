from __future__ import annotations

import pytest
import torch

from lightrft.batch import collate
from lightrft.ranks.base import ONE_RANK
from lightrft.sync.diagnosis import Cause
from lightrft.sync.parity import SUSPECTS, ParityGate, Seen, Verdict, worst
from lightrft.types import Prompt, Rollout

NAN = float("nan")


def rollout(*, sent=(1, 2), used=(1, 2), n=2):
    return Rollout(Prompt("p", (), token_ids=sent), 0, used, (5,) * n, "", (1,) * n, (-1.0,) * n, "stop", 0)


def seen(*gaps):
    """Rows of two response tokens, with these gaps; a gap that is None is not compared."""
    batch = collate([rollout() for _ in gaps], 1.0, torch.device("cpu"))
    compared = torch.tensor([[0, 0, *(gap is not None for gap in row)] for row in gaps]).long()
    return Seen(
        batch, torch.tensor([[NAN, NAN, *(NAN if gap is None else gap for gap in row)] for row in gaps]), compared
    )


class Told:
    """In the place of a diagnosis and an alarm."""

    def __init__(self):
        self.suspects, self.findings = [], []

    def __call__(self, suspects, limit, blank):
        self.suspects = suspects
        return Cause("temperature", "hot", "cool it")

    def alarm(self, finding, step, *, between):
        self.findings.append((finding.cause, step))


@pytest.fixture
def told():
    return Told()


def verdict(told, limit=0.2):
    return Verdict(ONE_RANK, limit, told, told.alarm)


def test_the_mean_is_over_all_tokens_that_are_compared(told):
    """(0.1 + 0.3 + 0.5) / 3 = 0.3."""
    parts = [seen((0.1, None)), seen((0.3, 0.5))]
    verdict(told, 0.31)(parts, 1)
    assert not told.findings
    verdict(told, 0.29)(parts, 1)
    assert told.findings == [("temperature", 1)]


def test_nothing_compared_is_nothing_found(told):
    verdict(told)([seen((None, None))], 1)
    assert not told.findings


def test_the_rows_that_differ_most_are_looked_at():
    rows = [(0.1, None), (0.5, 0.7), (None, None), (0.9, 0.1), (0.2, 0.2), (0.0, 0.3), (0.01, 0.01)]
    found = list(worst([seen(*rows[:3]), seen(*rows[3:])]))
    means = [each.gaps[each.compared == 1].mean().item() for each in found]
    assert means == pytest.approx([0.6, 0.5, 0.2, 0.15]) and len(found) == SUSPECTS
    assert all(len(each.batch) == 1 for each in found)


def test_a_turn_is_judged_by_its_first_optimizer_step(told):
    gate = ParityGate(verdict(told))
    for turn, gap in ((1, 0.9), (1, 5.0), (2, 0.1), (2, 5.0), (3, 0.9)):
        each = seen((gap, gap))
        gate.see(each.batch, each.gaps, each.compared, turn)
        gate.judge(turn)
    assert [step for _, step in told.findings] == [1, 3] and not gate.seen


def test_prompts_that_the_engine_changed_are_told_though_the_numbers_agree(told):
    gate, each = ParityGate(verdict(told)), seen((0.0, 0.0))
    for turn, used in ((1, (1, 2)), (2, (0, 1, 2))):
        gate.look([rollout(), rollout(used=used), rollout(sent=(), used=(9,))])  # images: the engine knows their tokens
        gate.see(each.batch, each.gaps, each.compared, turn)
        gate.judge(turn)
    assert told.findings == [("re-tokenised text", 2)]
