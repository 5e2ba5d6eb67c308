"""Golden log-probabilities, entropies and gradients of a row of logits at temperature 0.7 (S10)."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from golden import BOTH, cases, expect

from lightrft.models.token_model import TokenModel
from lightrft.strategy.base import Handle


class GivenLogits(torch.nn.Module):
    """Its hidden states are the logits, and its head hands on what it sees."""

    def __init__(self, logits):
        super().__init__()
        self.logits, self.head = logits, torch.nn.Identity()

    def get_output_embeddings(self):
        return self.head

    def forward(self, input_ids, use_cache):
        return SimpleNamespace(logits=self.head(self.logits))


@pytest.mark.parametrize("what", ["logprobs", "entropy"])
def test_extreme_logits_have_finite_gradients(batch_of, what):
    """+-300: the likeliest token, and one of probability 0."""
    logits = torch.tensor([[[300.0, -300.0, 0.0], [-300.0, 300.0, 300.0], [0.0, 0.0, 0.0]]]).requires_grad_()
    model = TokenModel(Handle(module := GivenLogits(logits), module))
    scores = model.logprobs(batch_of([((0, 1, 2), (0, 1, 1))]), entropy="gradient")
    getattr(scores, what).sum().backward()
    assert bool(getattr(scores, what).isfinite().all()) and bool(logits.grad.isfinite().all())
    if what == "logprobs":
        expect(scores.logprobs, [[0.0, -600.0, -0.6931471805599453]], torch.float32)
        expect(logits.grad, [[[-1.0, 1.0, 0.0], [0.0, -0.5, 0.5], [0.0, 0.0, 0.0]]], torch.float32)


@BOTH
@pytest.mark.parametrize("what", ["logp", "entropy"])
@cases("logits")
def test_logprobs_entropy_and_their_gradients(case, what, batch_of, dtype):
    p, wanted = case["params"], case["outputs"]
    given = torch.tensor(p["logits"], dtype=dtype)
    last = torch.full((2, 1, given.shape[-1]), float("nan"), dtype=dtype)  # nothing is predicted from the last position
    logits = torch.cat([given, last], 1).requires_grad_()
    rows = [((0, *labels), (0, 1, 1, 1)) for labels in p["labels"]]
    model = TokenModel(Handle(module := GivenLogits(logits), module))
    scores = model.logprobs(batch_of(rows, temperature=p["temperature"]), entropy="gradient")
    found = {"logp": scores.logprobs, "entropy": scores.entropy}[what]
    found.sum().backward()
    expect(found[:, 1:], wanted[what], dtype)
    expect(logits.grad[:, :-1], wanted[f"d{what}_dlogits"], dtype)
    assert bool(logits.grad[:, -1].eq(0).all())
