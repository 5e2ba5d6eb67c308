"""The rollout step as tensors.

Sequence alignment is the same everywhere: arrays are `[B, T]` over prompt *and* response, right-padded;
`logprobs[b, t]` is the log-probability of token `t` given the tokens before it; `response_mask` is 1 on tokens that
the policy sampled and 0 on the prompt and the padding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch

from lightrft.types import Rollout

if TYPE_CHECKING:
    from torch import Tensor

UNFILLED: Any = None
FILLED_BY = {
    "old_logprobs": "update/score.py, unless the on-policy short cut applies",
    "ref_logprobs": "update/score.py, when the KL coefficient is above 0",
    "entropy": "update/score.py, when --high_entropy_token_ratio is above 0",
    "selected": "update/loss.py, when --high_entropy_token_ratio is above 0",
    "group_tokens": "update/step.py, for the rows of one optimizer step",
    "values": "update/score.py, where there is a critic (estimator gae)",
    "advantages": "the estimator's advantage function",
    "returns": "the advantage function of a critic's estimator (gae)",
}


@dataclass(frozen=True)
class Batch:
    """The rollout step as tensors; see the module's note for the alignment.

    input_ids, attention_mask, response_mask [B, T] long; *_logprobs, values, advantages, returns [B, T] float32;
    rewards [B] float64 (NaN = invalid sample); group, prompt_lengths [B] long; truncated [B] bool; group_tokens [B]
    float64, the trained tokens of the row's whole group. Rows of a group have one prompt.
    Reading a field that no stage has filled raises, so none of them is ever None for a reader.
    """

    input_ids: Tensor
    attention_mask: Tensor
    response_mask: Tensor
    rollout_logprobs: Tensor
    rewards: Tensor
    group: Tensor
    prompt_lengths: Tensor
    truncated: Tensor
    temperature: float = 1.0
    old_logprobs: Tensor = UNFILLED
    ref_logprobs: Tensor = UNFILLED
    entropy: Tensor = UNFILLED
    selected: Tensor = UNFILLED
    group_tokens: Tensor = UNFILLED
    values: Tensor = UNFILLED
    advantages: Tensor = UNFILLED
    returns: Tensor = UNFILLED
    mm_inputs: Sequence[Mapping[str, Tensor]] = ()

    def __len__(self) -> int:
        return int(self.input_ids.shape[0])

    def __getattribute__(self, name: str) -> Any:
        value = object.__getattribute__(self, name)
        if value is None and name in FILLED_BY:
            raise ValueError(f"Batch.{name} is empty: it is filled by {FILLED_BY[name]}")
        return value

    def has(self, name: str) -> bool:
        return object.__getattribute__(self, name) is not None

    @property
    def first_tokens(self) -> Tensor:
        """[B, T] bool: the first token of each response."""
        place = self.attention_mask.cumsum(-1) - 1
        return (place == self.prompt_lengths[:, None]) & (self.attention_mask == 1)

    def filled(self, **changes: Any) -> Batch:
        """A copy with `changes`; `dataclasses.replace` would trip over the fields that are still empty."""
        kept = {entry.name: object.__getattribute__(self, entry.name) for entry in fields(self)}
        return Batch(**{**kept, **changes})

    def to(self, device: torch.device) -> Batch:
        moved = {name: value.to(device) for name, value in self._tensors().items()}
        return self.filled(**moved)

    def _tensors(self) -> dict[str, Tensor]:
        kept = {entry.name: object.__getattribute__(self, entry.name) for entry in fields(self)}
        return {name: value for name, value in kept.items() if hasattr(value, "dim")}

    def select(self, rows: Sequence[int]) -> Batch:
        """The rows in the given order, trimmed to the longest of them."""
        index = self.input_ids.new_tensor(list(rows))
        width = int(self.attention_mask[index].sum(-1).max()) if len(rows) else 0
        changed: dict[str, Any] = {}
        for name, value in self._tensors().items():
            changed[name] = value[index][:, :width] if value.dim() == 2 else value[index]
        if self.mm_inputs:
            changed["mm_inputs"] = tuple(self.mm_inputs[row] for row in rows)
        return self.filled(**changed)


def _padded(rows: Sequence[Sequence[Any]], dtype: torch.dtype, fill: float = 0) -> Tensor:
    width = max(len(row) for row in rows)
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows], dtype=dtype)


def collate(rollouts: Sequence[Rollout], temperature: float, device: torch.device) -> Batch:
    """Right-padded [B, T] tensors of prompt and response; an invalid reward becomes NaN (and never 0)."""
    ids = [[*r.prompt_ids, *r.response_ids] for r in rollouts]
    mask = [[*[0] * len(r.prompt_ids), *r.response_mask] for r in rollouts]
    logprobs = [[*[0.0] * len(r.prompt_ids), *r.rollout_logprobs] for r in rollouts]
    totals = [math.nan if r.reward is None or r.reward.error else r.reward.total for r in rollouts]
    batch = Batch(
        input_ids=_padded(ids, torch.long),
        attention_mask=_padded([[1] * len(row) for row in ids], torch.long),
        response_mask=_padded(mask, torch.long),
        rollout_logprobs=_padded(logprobs, torch.float32),
        rewards=torch.tensor(totals, dtype=torch.float64),
        group=torch.tensor([r.group for r in rollouts]),
        prompt_lengths=torch.tensor([len(r.prompt_ids) for r in rollouts]),
        truncated=torch.tensor([r.finish_reason == "length" for r in rollouts]),
        temperature=temperature,
    )
    return batch.to(device)
