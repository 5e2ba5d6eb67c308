"""How the rows of a batch are laid out for the model.

Padded: one row per sample. Shared: the prompt of a group once, its responses behind it, each seeing the prompt and
itself only. Both give the same log-probabilities; the shared layout saves computing a prompt once per sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightrft.groups import rows_by_group

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from lightrft.batch import Batch


@dataclass(frozen=True)
class Layout:
    """inputs: what the model is called with; predicts [N]: for each trained token of the batch, in row-major order,
    the flat index of the position whose hidden state predicts it."""

    inputs: dict[str, Tensor]
    predicts: Tensor

    def select(self, hidden: Tensor) -> Tensor:
        """[rows, length, H] to [N, H]; index_select, because its backward is deterministic."""
        return hidden.flatten(0, 1).index_select(0, self.predicts)


def lay_out(batch: Batch, sharing: Cost | None) -> Layout:
    """Shared prompts where they are allowed, at these costs, and pay; where no token is trained, one column."""
    layout = shared_prompts(batch) if sharing is not None and sharing_pays(batch, sharing) else padded_rows(batch)
    return layout if len(layout.predicts) else Layout({"input_ids": batch.input_ids[:, :1]}, layout.predicts)


def padded_rows(batch: Batch) -> Layout:
    """Right padding needs no mask in a causal model: no real token sees it."""
    row, column = batch.response_mask.nonzero(as_tuple=True)
    return Layout({"input_ids": batch.input_ids}, row * batch.input_ids.shape[1] + column - 1)


@dataclass(frozen=True)
class Cost:
    """Multiply-adds of one layer per token, and per pair of tokens that attention looks at."""

    per_token: float
    per_pair: float

    @classmethod
    def of(cls, model: PreTrainedModel) -> Cost:
        config: Any = model.config.get_text_config()
        ends = (model.get_input_embeddings(), model.get_output_embeddings())
        embeddings = {id(p) for end in ends if end is not None for p in end.parameters()}
        body = sum(p.numel() for p in model.parameters() if id(p) not in embeddings)
        return cls(body / config.num_hidden_layers, 2.0 * config.hidden_size)


def can_share_prompts(model: PreTrainedModel) -> bool:
    """Whether the model takes a mask of our own: full attention in every layer, through PyTorch's sdpa kernels,
    and positions that come from position ids (rotary)."""
    config: Any = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    windowed = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    rotary = any(name.endswith("rotary_emb") for name, _ in model.named_modules())
    full = kinds == {"full_attention"} and (hasattr(config, "layer_types") or not windowed)
    return full and rotary and config._attn_implementation == "sdpa"


# Bytes of the mask, one per pair of positions: 128 MiB, or 11,585 positions of one group. Attention makes a copy in
# its own dtype, four times as large in float32. Padded rows need neither.
LARGEST_MASK = 1 << 27


def sharing_pays(batch: Batch, cost: Cost) -> bool:
    """A masked attention over prompt and all responses grows with their square: it pays for short responses, and where
    its mask is not too large."""
    lengths, prompts = batch.lengths, batch.prompt_lengths
    shared = [int(prompts[rows[0]] + (lengths[rows] - prompts[rows]).sum()) for rows in _groups(batch)]
    if len(shared) * max(shared) ** 2 > LARGEST_MASK:
        return False
    width, pairs = batch.input_ids.shape[1], sum(length**2 for length in shared)
    padded = len(batch) * (width * cost.per_token + width**2 / 2 * cost.per_pair)
    return sum(shared) * cost.per_token + pairs * cost.per_pair < padded


def shared_prompts(batch: Batch) -> Layout:
    """One sequence per group. [S, L] token ids and positions, [S, 1, L, L] bool mask (True = sees)."""
    groups = _groups(batch)
    lengths, prompts = batch.lengths.tolist(), batch.prompt_lengths.tolist()
    width = max(prompts[rows[0]] + sum(lengths[row] - prompts[row] for row in rows) for rows in groups)
    blank = batch.input_ids.new_zeros(len(groups), width)
    ids, positions, owner = blank.clone(), blank.clone(), blank - 1  # owner: -1 padding, 0 prompt, 1.. response
    predicts = torch.zeros_like(batch.input_ids)
    for s, rows in enumerate(groups):
        end = prompt = prompts[rows[0]]
        ids[s, :prompt], owner[s, :prompt] = batch.input_ids[rows[0], :prompt], 0
        positions[s, :prompt] = torch.arange(prompt, device=ids.device)
        for number, row in enumerate(rows, start=1):
            start, end = end, end + lengths[row] - prompt
            ids[s, start:end], owner[s, start:end] = batch.input_ids[row, prompt : lengths[row]], number
            positions[s, start:end] = torch.arange(prompt, lengths[row], device=ids.device)
            before = torch.arange(start - 1, end - 1, device=ids.device)
            before[:1] = prompt - 1  # the first token of every response is predicted by the prompt's last
            predicts[row, prompt : lengths[row]] = s * width + before
    inputs = {"input_ids": ids, "position_ids": positions, "attention_mask": _sees(owner)}
    return Layout(inputs, predicts[batch.response_mask.bool()])


def _sees(owner: Tensor) -> Tensor:
    """[S, L] to [S, 1, L, L]: a token sees what stands before it in the prompt and in its own response."""
    key, query = owner[:, None, :], owner[:, :, None]
    sees = key == query
    sees |= key == 0
    return sees.tril_()[:, None]  # in place: it is the largest tensor here


def _groups(batch: Batch) -> list[list[int]]:
    return list(rows_by_group(batch.group.tolist()).values())
