from __future__ import annotations

from math import inf, log
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightrft.ranks.base import ONE_RANK
from lightrft.rollouts.engines.base import Sampling
from lightrft.rollouts.engines.sampling import keep
from lightrft.sync.diagnosis import Diagnosis, after_filters, at, spread
from lightrft.sync.parity import limit_for

LOGITS, TOKENS = torch.tensor([[4.0, 2.0, 1.0, 1.0]]).log(), torch.tensor([1])  # p = 1/2 1/4 1/8 1/8


@pytest.mark.parametrize(
    ("temperature", "wanted"),
    [(1.0, log(1 / 4)), (0.5, log(4 / 22))],  # squares: 16 4 1 1
)
def test_the_numbers_of_another_temperature(temperature, wanted):
    assert at(temperature)(LOGITS, TOKENS).tolist() == pytest.approx([wanted], rel=1e-6)


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [({"top_k": 2}, log(1 / 3)), ({"top_p": 0.7}, log(1 / 3)), ({"min_p": 0.25}, log(1 / 4)), ({}, log(1 / 4))],
)
def test_the_numbers_of_what_filters_leave(filters, wanted):
    """Of 1/2 and 1/4 the second is a third."""
    hypothesis = after_filters(Sampling(1, **filters), keep)
    assert hypothesis(LOGITS, TOKENS).tolist() == pytest.approx([wanted], rel=1e-6)


@pytest.mark.parametrize(
    ("mask", "most", "wanted"),
    [
        ([0, 1, 1, 1, 1, 1], 3, [0, 1, 0, 1, 0, 1]),
        ([0, 1, 0, 1], 3, [0, 1, 0, 1]),
        ([0, 1, 1], 1, [0, 1, 0]),
        ([0, 0], 3, [0, 0]),
    ],
)
def test_some_tokens_of_a_row_evenly_spread(mask, most, wanted):
    assert spread(torch.tensor([mask]), most).tolist() == [wanted]


@pytest.mark.parametrize(
    ("sides", "limit"), [({"fp32"}, 1e-3), ({"fp32", "bf16"}, 0.1), ({"fp16", "fp32"}, 0.03), ({"bf16", "fp16"}, 0.1)]
)
def test_the_limit_is_that_of_the_coarser_side(sides, limit):
    assert limit_for(sides) == limit


@pytest.mark.parametrize(("temperature", "left"), [(0.75, 0.0), (1.3, 0.0), (1.03, inf), (0.97, inf), (1.0, inf)])
def test_a_temperature_that_is_a_few_per_cent_off_is_no_cause(temperature, left):
    """Rounding looks like one."""
    logits, tokens = torch.randn(50, 6, generator=torch.manual_seed(0)), torch.arange(50) % 6
    engine = at(temperature)(logits, tokens)[None]
    row: Any = SimpleNamespace(
        temperature=1.0, rollout_logprobs=engine, input_ids=engine, response_mask=torch.ones(1, 50)
    )
    policy: Any = SimpleNamespace(measured=lambda row, measure: torch.stack(measure(logits, tokens))[:, None])
    no_texts: Any = None
    diagnosis = Diagnosis(policy, ONE_RANK, Sampling(1), keep, no_texts, lambda: None, exact=False)
    assert diagnosis._temperature([row]).left == pytest.approx(left, abs=5e-3)
