"""Golden log-probabilities, entropies and gradients of a row of logits at temperature 0.7 (S10)."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import torch

from lightrft.models.forward import token_logprobs

GOLDEN = json.loads((Path(__file__).parents[1] / "algorithms" / "golden_ragged8.json").read_text())
[CASE] = [case for case in GOLDEN["cases"] if case["name"] == "logits.T0.7"]
FLOAT32 = {"rtol": 2e-5, "atol": 2e-6}  # the fixture's own: log-probabilities are taken in float32


class GivenLogits(torch.nn.Module):
    """Its hidden states are the logits, and its head hands on what it sees."""

    def __init__(self, logits):
        super().__init__()
        self.logits, self.head = logits, torch.nn.Identity()

    def get_output_embeddings(self):
        return self.head

    def forward(self, input_ids, use_cache):
        return SimpleNamespace(logits=self.head(self.logits))


def test_logprobs_entropy_and_gradient_of_given_logits(batch_of):
    given = torch.tensor(CASE["params"]["logits"])
    last = torch.full((2, 1, given.shape[-1]), float("nan"))  # nothing is predicted from the last position
    logits = torch.cat([given, last], 1).requires_grad_()
    rows = [((0, *labels), (0, 1, 1, 1)) for labels in CASE["params"]["labels"]]
    model = GivenLogits(logits)
    scores = token_logprobs(model, model, batch_of(rows, temperature=0.7), entropy="value")
    scores.logprobs.sum().backward()
    torch.testing.assert_close(scores.logprobs[:, 1:].detach(), torch.tensor(CASE["outputs"]["logp"]), **FLOAT32)
    torch.testing.assert_close(scores.entropy[:, 1:], torch.tensor(CASE["outputs"]["entropy"]), **FLOAT32)
    wanted = torch.tensor(CASE["outputs"]["dlogp_dlogits"])
    torch.testing.assert_close(logits.grad[:, :-1], wanted, **FLOAT32)
    assert bool(logits.grad[:, -1].eq(0).all())
