"""The rollout step as tensors.

Sequence alignment is the same everywhere: arrays are `[B, T]` over prompt *and* response, right-padded;
`logprobs[b, t]` is the log-probability of token `t` given the tokens before it; `response_mask` is 1 on tokens that
the policy sampled and 0 on the prompt and the padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import pad

from lightrft.sampling_masks import SamplingMasks, sampling_masks
from lightrft.types import MediaInputs, Rollout

if TYPE_CHECKING:
    from torch import Tensor

    from lightrft.step_index import StepIndex

UNFILLED: Any = None
FILLED_BY = {
    "index": "update/score.py, from step_index.py",
    "sampling_masks": "collate, from an engine that gives them (--replay_sampling_mask)",
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

    input_ids, response_mask [B, T] long; *_logprobs, values, advantages, returns [B, T] float32; lengths [B] long, of
    prompt and response; prompt_lengths [B] long; rewards [B] float64 (NaN = invalid sample); group [B] long;
    truncated [B] bool; group_tokens [B] float64, the trained tokens of the row's whole group. Rows of a group have one
    prompt. mm_inputs: of the prompt of each row, in host memory; empty where no row has any. index: what is known of
    all ranks' rows. sampling_masks: with them all *_logprobs are of what they leave of the vocabulary, and an entropy
    is of all of it.
    Reading a field that no stage has filled raises, so none of them is ever None for a reader.
    """

    input_ids: Tensor
    response_mask: Tensor
    rollout_logprobs: Tensor
    rewards: Tensor
    group: Tensor
    lengths: Tensor
    prompt_lengths: Tensor
    truncated: Tensor
    temperature: float = 1.0
    index: StepIndex = UNFILLED
    sampling_masks: SamplingMasks = UNFILLED
    old_logprobs: Tensor = UNFILLED
    ref_logprobs: Tensor = UNFILLED
    entropy: Tensor = UNFILLED
    selected: Tensor = UNFILLED
    group_tokens: Tensor = UNFILLED
    values: Tensor = UNFILLED
    advantages: Tensor = UNFILLED
    returns: Tensor = UNFILLED
    mm_inputs: Sequence[MediaInputs | None] = ()

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
        """[B, T] bool: the first token of each response; an empty response has none."""
        place = torch.arange(self.input_ids.shape[1], device=self.input_ids.device)
        return (place == self.prompt_lengths[:, None]) & (place < self.lengths[:, None])

    def filled(self, **changes: Any) -> Batch:
        """A copy with `changes`; `dataclasses.replace` would trip over the fields that are still empty."""
        kept = {entry.name: object.__getattribute__(self, entry.name) for entry in fields(self)}
        return Batch(**{**kept, **changes})

    def with_rewards(self, rewards: np.ndarray) -> Batch:
        """With other rewards [R] of all ranks' rows, of which it takes its own."""
        index = self.index.with_rewards(rewards)
        return self.filled(index=index, rewards=self.rewards.new_tensor(rewards[index.own]))

    def dummy_row(self) -> Batch:
        """A row that weighs nothing, for a rank that has less to do than others: a prompt of one token, no response."""
        blank: dict[str, Any] = {name: value.new_zeros((1,) * value.dim()) for name, value in self._tensors().items()}
        one = self.lengths.new_ones(1)
        if self.has("sampling_masks"):
            blank["sampling_masks"] = self.sampling_masks.blank()
        return self.filled(**blank | {"lengths": one, "prompt_lengths": one, "mm_inputs": ()})

    def and_prompt(self, ids: Sequence[int], media: MediaInputs) -> Batch:
        """With one more row, a prompt with images and no response, which weighs nothing."""
        width = max(self.input_ids.shape[1], len(ids))
        longer = {
            name: torch.cat([pad(value, (0, width - value.shape[1])), value.new_zeros(1, width)])
            if value.dim() == 2
            else torch.cat([value, value.new_zeros(1)])
            for name, value in self._tensors().items()
        }
        longer["input_ids"][-1, : len(ids)] = longer["input_ids"].new_tensor(ids)
        for name in ("lengths", "prompt_lengths"):
            longer[name][-1] = len(ids)
        longer["group"][-1] = -1
        return self.filled(**longer, mm_inputs=(*(self.mm_inputs or [None] * len(self)), media))

    def to(self, device: torch.device) -> Batch:
        moved: dict[str, Any] = {name: value.to(device) for name, value in self._tensors().items()}
        if self.has("sampling_masks"):
            moved["sampling_masks"] = self.sampling_masks.to(device)
        return self.filled(**moved)

    def _tensors(self) -> dict[str, Tensor]:
        kept = {entry.name: object.__getattribute__(self, entry.name) for entry in fields(self)}
        return {name: value for name, value in kept.items() if hasattr(value, "dim")}

    def select(self, rows: Sequence[int]) -> Batch:
        """The rows in the given order, trimmed to the longest of them."""
        chosen = self.input_ids.new_tensor(list(rows))
        width = int(self.lengths[chosen].max()) if len(rows) else 0
        changed: dict[str, Any] = {}
        for name, value in self._tensors().items():
            changed[name] = value[chosen][:, :width] if value.dim() == 2 else value[chosen]
        if self.has("sampling_masks"):
            changed["sampling_masks"] = self.sampling_masks.select(rows, width)
        if self.mm_inputs:
            changed["mm_inputs"] = _unless_none([self.mm_inputs[row] for row in rows])
        return self.filled(**changed)


def collate(rollouts: Sequence[Rollout], temperature: float, device: torch.device) -> Batch:
    """Right-padded [B, T] tensors of prompt and response; an invalid reward becomes NaN (and never 0)."""
    prompts = np.array([len(r.prompt_ids) for r in rollouts], dtype=np.int64)
    lengths = prompts + np.array([len(r.response_ids) for r in rollouts], dtype=np.int64)
    shape = (len(rollouts), int(lengths.max(initial=0)))
    ids, mask = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    logprobs = np.zeros(shape, dtype=np.float32)
    for row, (rollout, start, end) in enumerate(zip(rollouts, prompts, lengths, strict=True)):
        ids[row, :start], ids[row, start:end] = rollout.prompt_ids, rollout.response_ids
        mask[row, start:end], logprobs[row, start:end] = rollout.response_mask, rollout.rollout_logprobs
    batch = Batch(
        input_ids=torch.from_numpy(ids),
        response_mask=torch.from_numpy(mask),
        rollout_logprobs=torch.from_numpy(logprobs),
        rewards=torch.tensor([rollout.valid_reward for rollout in rollouts], dtype=torch.float64),
        group=torch.tensor([rollout.group for rollout in rollouts], dtype=torch.long),
        lengths=torch.from_numpy(lengths),
        prompt_lengths=torch.from_numpy(prompts),
        truncated=torch.tensor([rollout.finish_reason == "length" for rollout in rollouts], dtype=torch.bool),
        temperature=temperature,
        sampling_masks=sampling_masks(rollouts, shape[1]) or UNFILLED,
        mm_inputs=_unless_none([rollout.mm_inputs for rollout in rollouts]),
    )
    return batch.to(device)


def _unless_none(media: Sequence[MediaInputs | None]) -> tuple[MediaInputs | None, ...]:
    return tuple(media) if any(each is not None for each in media) else ()
