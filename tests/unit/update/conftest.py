"""A model in float64 and a batch of eight rows to learn from."""

from __future__ import annotations

import copy

import pytest
import torch
from indexed import indexed
from updates import ADVANTAGES, GROUPS, LENGTHS, full_logprobs


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
