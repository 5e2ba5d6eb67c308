"""The attention of every model that trains: PyTorch's sdpa, which knows packed rows and shared sequences as well.

It takes the place of the library's "sdpa". It acts in a forward pass that is given `segments` (models/segments.py) or
`sequence_ranks` (models/sequence_parallel.py), which the library hands on to attention, also when a layer is computed
again in the backward pass. Whoever runs the model without them, as sampling does, runs the library's own, but for long
causal rows without a mask, whose products are faster on a CPU (models/segment_products.py).
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from lightrft.errors import Refused
from lightrft.models.attention_once import kernels_once
from lightrft.models.segment_products import is_long
from lightrft.models.segments import Segments, Tree, attend
from lightrft.models.sequence_parallel import NAME, over_ranks

if TYPE_CHECKING:
    from torch import Tensor

    from lightrft.models.segment_blocks import Three
    from lightrft.ranks.sequences import SequenceRanks

TAKE_SEGMENTS = ("sdpa", NAME)

# What models tell attention beside its tensors, and what does not change it. Others may: sinks, caps, biases.
LIBRARY = ("position_ids", "cache_position", "cache", "past_key_values", "use_cache", "logits_to_keep", "return_dict")
OUTPUTS = ("output_attentions", "output_hidden_states", "output_router_logits")
USED = ("dropout", "scaling", "is_causal")
WITHOUT = {
    "--sp_size": "use --sp_size 1",
    "shared prompts and packed samples": "use --no-share_prompts, and leave --packing_samples out",
}


def attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    sequence_ranks: SequenceRanks | None = None,
    segments: Segments | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """query [B, heads, t, d], key and value [B, key heads, t, d] of this process's part, to [B, t, heads, d].

    attention_mask: None for a causal model's own, or [B, 1, T, T] over whole sequences. With segments, which say what a
    token sees, it is not looked at. A tower, whose tokens see later ones, has neither segments nor ranks.
    """
    causal = getattr(module, "is_causal", True)
    if sequence_ranks is None and segments is None and causal and attention_mask is None:
        segments = _long_rows((query, key, value), more)
    if not causal or (sequence_ranks is None and segments is None):
        with kernels_once():
            return sdpa_attention_forward(module, query, key, value, attention_mask, **more)
    flag = "--sp_size" if segments is None else "shared prompts and packed samples"
    _check(flag, more)

    def whole(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Of whole sequences: [B, h, T, d] to [B, T, h, d]."""
        _check_length(flag, query.shape[2], None if segments else attention_mask, segments, more)
        if segments is not None:
            return attend(query, key, value, segments, more.get("scaling")).transpose(1, 2)
        groups = query.shape[1] // key.shape[1]
        shape: Any = SimpleNamespace(num_key_value_groups=groups, is_causal=causal)
        used = {name: given for name, given in more.items() if name in USED}
        with kernels_once():
            return sdpa_attention_forward(shape, query, key, value, attention_mask, **used)[0]

    if sequence_ranks is None:
        return whole(query, key, value).contiguous(), None
    return over_ranks(sequence_ranks, whole, query, key, value), None


def _long_rows(states: Three, told: dict[str, Any]) -> Segments | None:
    """Each row as one sequence, where it is long enough to gain by products of matrices; None: the library's kernel."""
    query, key, _ = states
    length, causal = query.shape[2], told.get("is_causal") in (None, True)
    if length != key.shape[2] or not causal or _not_honoured(told) or (told.get("sliding_window") or length) < length:
        return None
    return Segments(((Tree(0, (length,)),),) * len(query), length) if is_long(states) else None


def _check(flag: str, told: dict[str, Any]) -> None:
    """What this attention does not do is refused where it is asked for."""
    if (what := _not_honoured(told)) is not None:
        raise Refused(f"{flag}: the model's attention is told {what}, which is not honoured; {WITHOUT[flag]}")


def _not_honoured(told: dict[str, Any]) -> str | None:
    known = (*LIBRARY, *OUTPUTS, *USED, "sliding_window")
    other = [name for name, given in told.items() if name not in known and given is not None and given is not False]
    return other[0] if other else ("dropout" if told.get("dropout") else None)


def _check_length(flag: str, length: int, mask: Tensor | None, segments: Segments | None, told: dict[str, Any]) -> None:
    if mask is not None and mask.shape[-2:] != (length, length):
        raise Refused(f"{flag}: the model makes attention masks of its own; {WITHOUT[flag]}")
    if (told.get("sliding_window") or length) < length:
        raise Refused(f"{flag}: the model's attention has a sliding window; {WITHOUT[flag]}")
    if segments is not None and segments.width != length:
        raise Refused(f"{flag}: the model's attention adds tokens of its own; {WITHOUT[flag]}")


AttentionInterface.register("sdpa", attention)
AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
