"""Sampling masks as tensors: the sets of tokens that a batch's tokens were drawn from, ragged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from lightrft.types import Rollout

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TokenSets:
    """Of N tokens: sizes [N] long, 0 = the whole vocabulary; ids [sum of sizes] long, one set after another."""

    sizes: Tensor
    ids: Tensor


@dataclass(frozen=True)
class SamplingMasks:
    """sizes [B, T] long: of the set of each token, 0 = the whole vocabulary, and where nothing was sampled.

    ids: the sets of each row, one after another, [sum of its sizes] int.
    """

    sizes: Tensor
    ids: tuple[Tensor, ...]

    def select(self, rows: Sequence[int], width: int) -> SamplingMasks:
        return SamplingMasks(self.sizes[list(rows), :width], tuple(self.ids[row] for row in rows))

    def to(self, device: torch.device) -> SamplingMasks:
        return SamplingMasks(self.sizes.to(device), tuple(ids.to(device) for ids in self.ids))

    def blank(self) -> SamplingMasks:
        """Of one row of one token, which nobody sampled."""
        return SamplingMasks(self.sizes.new_zeros(1, 1), (self.sizes.new_zeros(0, dtype=torch.int),))

    def at(self, places: Tensor) -> TokenSets:
        """Of N tokens, by their flat places in [B, T]."""
        every = self.sizes.flatten()
        starts, sizes = (every.cumsum(0) - every)[places], every[places]
        skipped = starts - (sizes.cumsum(0) - sizes)  # ids of other tokens that stand before each set
        where = torch.arange(int(sizes.sum()), device=sizes.device) + skipped.repeat_interleave(sizes)
        return TokenSets(sizes, torch.cat(self.ids)[where].long())


def sampling_masks(rollouts: Sequence[Rollout], width: int) -> SamplingMasks | None:
    """Of rows of `width` tokens; None where the engine gave none."""
    given = [(rollout, rollout.sampling_mask) for rollout in rollouts if rollout.sampling_mask is not None]
    if not given:
        return None
    assert len(given) == len(rollouts), "an engine gives a mask with every response or with none"
    sizes, rows = np.zeros((len(rollouts), width), dtype=np.int64), []
    for row, (rollout, mask) in enumerate(given):
        own, ids = (np.array(each, dtype=np.intc) for each in (mask.sizes, mask.ids))
        assert _holds_the_sampled(rollout.response_ids, own, ids), "a token was drawn from a set that it is not in"
        sizes[row, len(rollout.prompt_ids) :][: len(own)] = own
        rows.append(torch.from_numpy(ids))
    return SamplingMasks(torch.from_numpy(sizes), tuple(rows))


def _holds_the_sampled(response_ids: Sequence[int], sizes: np.ndarray, ids: np.ndarray) -> bool:
    if len(sizes) != len(response_ids):
        return False
    sampled = np.array(response_ids, dtype=np.intc).repeat(sizes)
    return int((ids == sampled).sum()) == np.count_nonzero(sizes)
