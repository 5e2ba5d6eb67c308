"""What the trainer's update must equal: the same mathematics, row by row and without padding, in plain PyTorch.

Nothing here is shared with lightrft: advantages, clipping, KL and the five aggregations are written out once more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True)
class Sample:
    """One response: what was asked, what was sampled with which log-probabilities, and what it was worth.

    beside: what a processor made of the prompt's images, as the model takes it.
    """

    group: int
    prompt: tuple[int, ...]
    response: tuple[int, ...]
    logprobs: tuple[float, ...]
    reward: float
    beside: Mapping[str, Tensor] = field(default_factory=dict)

    def inputs(self) -> dict[str, Tensor]:
        """What stands beside each token of the prompt is 0 beside those of the response."""
        shape, longer = (1, len(self.prompt)), (0, len(self.response))
        return {name: pad(value, longer) if value.shape == shape else value for name, value in self.beside.items()}


def advantages(samples: Sequence[Sample]) -> list[float | None]:
    """(R - mean) / (std + 1e-6) within the group, ddof 1; None for an invalid sample."""
    found: list[float | None] = []
    for sample in samples:
        peers = [s.reward for s in samples if s.group == sample.group and math.isfinite(s.reward)]
        if not math.isfinite(sample.reward):
            found.append(None)
        elif len(peers) < 2 or len(set(peers)) == 1:
            found.append(0.0)
        else:
            mean = sum(peers) / len(peers)
            std = math.sqrt(sum((r - mean) ** 2 for r in peers) / (len(peers) - 1))
            found.append((sample.reward - mean) / (std + 1e-6))
    return found


def logprobs(model, sample: Sample, temperature: float) -> Tensor:
    """[response length], of one unpadded row."""
    ids = torch.tensor([[*sample.prompt, *sample.response]])
    logits = model(input_ids=ids, use_cache=False, **sample.inputs()).logits[0].float() / temperature
    start = len(sample.prompt)
    picked = logits[start - 1 : -1].log_softmax(-1)
    return picked.gather(-1, ids[0, start:, None])[:, 0]


@dataclass(frozen=True)
class Loss:
    """The settings of the update; `old` and `reference` are log-probabilities of every sample, or None."""

    mode: str
    temperature: float
    max_new_tokens: int
    low: float = 0.2
    high: float = 0.3
    kl_coef: float = 0.0
    old: Sequence[Tensor] | None = None
    reference: Sequence[Tensor] | None = None

    def __call__(self, model, samples: Sequence[Sample], scale: Sequence[float | None], rows: Sequence[int]) -> Tensor:
        """The loss of one optimizer step on `rows`; `scale` are the advantages of all samples."""
        valid = [row for row in rows if scale[row] is not None]
        total = torch.zeros(())
        for row in valid:
            per_token = self._tokens(logprobs(model, samples[row], self.temperature), row, scale[row])
            total = total + self._weight(row, samples, valid, rows) * per_token.sum()
        return total

    def _tokens(self, now: Tensor, row: int, advantage: float) -> Tensor:
        ratio = (now - (now.detach() if self.old is None else self.old[row])).exp()
        loss = -torch.minimum(ratio * advantage, ratio.clamp(1 - self.low, 1 + self.high) * advantage)
        if self.kl_coef and self.reference is not None:
            d = now - self.reference[row]
            loss = loss + self.kl_coef * (torch.exp(-d) - 1 + d)
        return loss

    def _weight(self, row: int, samples: Sequence[Sample], valid: Sequence[int], rows: Sequence[int]) -> float:
        tokens = {r: len(samples[r].response) for r in valid}
        groups: dict[int, int] = {}
        for r in valid:
            groups[samples[r].group] = groups.get(samples[r].group, 0) + tokens[r]
        return {
            "token-mean": 1 / sum(tokens.values()),
            "seq-mean-token-sum": 1 / len(valid),
            "seq-mean-token-mean": 1 / (len(valid) * tokens[row]),
            "seq-mean-token-sum-norm": 1 / (len(rows) * self.max_new_tokens),
            "prompt-mean-token-mean": 1 / (len(groups) * groups[samples[row].group]),
        }[self.mode]


def clipped_gradient(model, loss: Tensor, max_norm: float = 0.0) -> float:
    """Leaves the gradient of `loss`, clipped to `max_norm` where that is above 0; returns the norm before clipping."""
    model.zero_grad()
    loss.backward()
    parameters = [p for p in model.parameters() if p.grad is not None]
    norm = torch.sqrt(sum((p.grad.double() ** 2).sum() for p in parameters))
    scale = min(1.0, max_norm / (float(norm) + 1e-6)) if max_norm else 1.0
    for p in parameters:
        p.grad *= scale
    return float(norm)


def sgd_step(model, loss: Tensor, learning_rate: float, max_norm: float = 0.0) -> float:
    """One step of plain SGD; returns the norm before clipping."""
    norm = clipped_gradient(model, loss, max_norm)
    with torch.no_grad():
        for p in model.parameters():
            if p.grad is not None:
                p -= learning_rate * p.grad
    return norm
