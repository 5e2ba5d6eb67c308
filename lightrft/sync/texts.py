"""Tokens that were made of a text: what an engine that is given texts, or gives some back, would have computed with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightrft.batch import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Encode = Callable[[list[int]], list[int]]

SURE = -0.02  # above this log-probability a token is as good as certain under any weights: that it agrees says nothing
NATS_OFF = 0.3  # a number that belongs to another token is off by more than this on average
MOSTLY = 0.8


@dataclass(frozen=True)
class Texts:
    """longest: tokens of a row that the model can read."""

    tokenizer: PreTrainedTokenizerBase
    longest: int

    def ways(self) -> Iterator[tuple[str, Encode]]:
        """In words, and as a function of a prompt's ids: other ids that its text may have become."""
        bos = self.tokenizer.bos_token_id
        for special in (False, True):
            yield "encoded again", partial(self._again, skip=False, special=special)
            yield "encoded again without their special tokens", partial(self._again, skip=True, special=special)
        if isinstance(bos, int):
            yield f"opened by one more {self.tokenizer.bos_token}", lambda ids: [bos, *ids]
            yield f"without their {self.tokenizer.bos_token}", lambda ids: ids[1:] if ids[:1] == [bos] else ids

    def _again(self, ids: list[int], *, skip: bool, special: bool) -> list[int]:
        text = self.tokenizer.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
        return self.tokenizer.encode(text, add_special_tokens=special)

    def with_prompt(self, row: Batch, encode: Encode) -> Batch:
        """One row, with its prompt as `encode` makes it; the row itself where nothing changes, or it cannot be read."""
        length = int(row.prompt_lengths[0])
        own, rest = row.input_ids[0, :length].tolist(), row.input_ids.shape[1] - length
        ids = encode(own)
        if ids == own or not ids or not rest or len(ids) + rest > self.longest:
            return row
        longer = len(ids) - length
        if row.has("sampling_masks"):
            masks = row.sampling_masks
            row = row.filled(sampling_masks=replace(masks, sizes=_behind(masks.sizes, length, len(ids))))
        return row.filled(
            input_ids=torch.cat([row.input_ids.new_tensor([ids]), row.input_ids[:, length:]], 1),
            response_mask=_behind(row.response_mask, length, len(ids)),
            rollout_logprobs=_behind(row.rollout_logprobs, length, len(ids)),
            prompt_lengths=row.prompt_lengths + longer,
            lengths=row.lengths + longer,
        )


def _behind(values: Tensor, length: int, other: int) -> Tensor:
    """values [1, T], 0 on a prompt of `length`, behind one of another length."""
    return torch.cat([values.new_zeros(1, other), values[:, length:]], 1)


def was_encoded_again(gaps: Sequence[float], engine: Sequence[float], limit: float) -> bool | None:
    """Whether a response's numbers agree up to a place and belong to other tokens from there on; None: they all agree.

    gaps: |trainer - engine| of its tokens; engine: the engine's log-probabilities.
    """
    off = [gap > limit for gap in gaps]
    if True not in off:
        return None
    first = off.index(True)
    agreed = sum(logprob < SURE for logprob in engine[:first])
    rest = off[first:]
    mean = sum(gaps[first:]) / len(rest)
    return agreed > 0 and sum(rest) >= MOSTLY * len(rest) and mean > NATS_OFF
