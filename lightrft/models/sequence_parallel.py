"""`--sp_size`: processes that share a sequence (Ulysses, arXiv:2309.14509).

Each process runs the model on its part of every sequence, [B, T / sp]. Attention alone looks across: there a process
gives away its part of all heads for the whole sequence of some, [B, heads, T / sp, d] to [B, heads / sp, T, d], and
after it takes its part back.

The attention that does so is in models/attention.py.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightrft.ranks.sequences import SequenceRanks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from transformers import PreTrainedModel

    from lightrft.ranks.base import World

NAME = "sdpa_over_sequence_ranks"


def over_ranks(
    ranks: SequenceRanks, whole: Callable[[Tensor, Tensor, Tensor], Tensor], query: Tensor, key: Tensor, value: Tensor
) -> Tensor:
    """query [B, heads, t, d], key and value [B, key heads, t, d] of this process's part, to [B, t, heads, d].

    whole: attention of all tokens and of some heads, [B, h, T, d] to [B, T, h, d].
    """
    repeated = (_enough_heads(tensor, ranks.size) for tensor in (key, value))
    return _parts_for_heads(ranks, whole(*_heads_for_parts(ranks, [query, *repeated])))


def _enough_heads(states: Tensor, size: int) -> Tensor:
    """[B, key heads, t, d] with heads repeated until `size` divides them; query heads are a multiple of these, too."""
    heads = states.shape[1]
    return states.repeat_interleave(math.lcm(heads, size) // heads, dim=1)


def _heads_for_parts(ranks: SequenceRanks, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Each [B, H, t, d] to [B, H / size, T, d], in one message."""
    split = [tensor.unflatten(1, (ranks.size, -1)).movedim(1, 0) for tensor in tensors]
    came = ranks.exchange(torch.cat([part.flatten(1) for part in split], dim=1))
    pieces = came.split([part[0].numel() for part in split], dim=1)
    whole = (piece.view(part.shape) for piece, part in zip(pieces, split, strict=True))
    return [piece.movedim(0, 2).flatten(2, 3) for piece in whole]  # [size, B, h, t, d]


def _parts_for_heads(ranks: SequenceRanks, found: Tensor) -> Tensor:
    """[B, T, H / size, d] to [B, t, H, d]."""
    came = ranks.exchange(found.unflatten(1, (ranks.size, -1)).movedim(1, 0))  # [size, B, t, h, d]
    return came.movedim(0, 2).flatten(2, 3)


def share_sequences(model: PreTrainedModel, world: World) -> SequenceRanks | None:
    """Lets the model look across its sequences' processes, where there are several."""
    if world.sp_size == 1:
        return None
    model.set_attn_implementation(NAME)
    return SequenceRanks(world)
