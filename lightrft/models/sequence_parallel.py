"""`--sp_size`: processes that share a sequence (Ulysses, arXiv:2309.14509).

Each process runs the model on its part of every sequence, [B, T / sp]. Attention alone looks across: there a process
gives away its part of all heads for the whole sequence of some, [B, heads, T / sp, d] to [B, heads / sp, T, d], and
after it takes its part back.

It is an attention implementation of the model's library. It acts in a forward pass that is given `sequence_ranks`,
which the library hands on to attention, also when a layer is computed again in the backward pass. Whoever runs the
model without them, as sampling does, runs PyTorch's sdpa.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from lightrft.errors import Refused
from lightrft.ranks.sequences import SequenceRanks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel

    from lightrft.ranks.base import World

NAME = "sdpa_over_sequence_ranks"
TAKE_A_MASK = ("sdpa", NAME)  # [B, 1, T, T] bool, of whatever is to be seen

# What models tell attention beside its tensors, and what does not change it. Others may: sinks, caps, biases.
LIBRARY = ("position_ids", "cache_position", "cache", "past_key_values", "use_cache", "logits_to_keep", "return_dict")
OUTPUTS = ("output_attentions", "output_hidden_states", "output_router_logits")
USED = ("dropout", "scaling", "is_causal")


def attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    sequence_ranks: SequenceRanks | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """query [B, heads, t, d], key and value [B, key heads, t, d] of this process's part, to [B, t, heads, d].

    attention_mask: None for a causal model's own, or [B, 1, T, T] over the whole sequence.
    """
    if sequence_ranks is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **more)
    repeated = (_enough_heads(tensor, sequence_ranks.size) for tensor in (key, value))
    query, key, value = _heads_for_parts(sequence_ranks, [query, *repeated])
    _check(query.shape[2], attention_mask, more)
    groups, causal = query.shape[1] // key.shape[1], getattr(module, "is_causal", True)
    shape: Any = SimpleNamespace(num_key_value_groups=groups, is_causal=causal)
    used = {name: given for name, given in more.items() if name in USED}
    found, _ = sdpa_attention_forward(shape, query, key, value, attention_mask, **used)
    return _parts_for_heads(sequence_ranks, found), None


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


def _check(length: int, mask: Tensor | None, told: dict[str, Any]) -> None:
    """What this attention does not do is refused where it is asked for."""
    if mask is not None and mask.shape[-2:] != (length, length):
        raise Refused("--sp_size: the model makes attention masks of its own; use --sp_size 1")
    if (told.get("sliding_window") or length) < length:
        raise Refused("--sp_size: the model's attention has a sliding window; use --sp_size 1")
    known = (*LIBRARY, *OUTPUTS, *USED, "sliding_window")
    other = [name for name, given in told.items() if name not in known and given is not None and given is not False]
    if other:
        raise Refused(f"--sp_size: the model's attention is told {other[0]}, which is not honoured; use --sp_size 1")


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


def share_sequences(model: PreTrainedModel, world: World) -> SequenceRanks | None:
    """Lets the model look across its sequences' processes, where there are several."""
    if world.sp_size == 1:
        return None
    model.set_attn_implementation(NAME)
    return SequenceRanks(world)
