"""How the rows of a batch are laid out for the model.

Padded: one row per sample. Shared: the prompt of a group once, its responses behind it, each seeing the prompt and
itself only. Both give the same log-probabilities; the shared layout saves computing a prompt once per sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from lightrft.groups import rows_by_group
from lightrft.models.media import joined, rows_of
from lightrft.models.reach import reach
from lightrft.models.sequence_parallel import TAKE_A_MASK

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from lightrft.batch import Batch


@dataclass(frozen=True)
class Layout:
    """inputs: what the model is called with; predicts [N]: for each trained token of the batch, in row-major order,
    the flat index of the position whose hidden state predicts it.

    here: which of the batch's trained tokens those are, [all] bool; None = all of them.
    """

    inputs: dict[str, Tensor]
    predicts: Tensor
    here: Tensor | None = None

    def select(self, hidden: Tensor) -> Tensor:
        """[rows, length, H] to [N, H]; index_select, because its backward is deterministic."""
        return hidden.flatten(0, 1).index_select(0, self.predicts)

    def own(self, values: Tensor) -> Tensor:
        """[all] to [N]."""
        return values if self.here is None else values[self.here]

    @property
    def positions(self) -> int:
        return self.inputs["input_ids"].numel()

    def part(self, number: int, parts: int) -> Layout:
        """The positions of one of so many equal parts of every row. A mask stays that of whole rows."""
        width = self.inputs["input_ids"].shape[1]
        length = width // parts
        start = number * length
        inputs = {"position_ids": torch.arange(width, device=self.predicts.device)[None], **self.inputs}
        own = {name: inputs[name][:, start : start + length] for name in ("input_ids", "position_ids")}
        row, column = self.predicts // width, self.predicts % width - start
        here = (column >= 0) & (column < length)
        return Layout({**inputs, **own}, (row * length + column)[here], here)


def lay_out(batch: Batch, sharing: Cost | None, parts: int = 1) -> Layout:
    """Shared prompts where they are allowed, at these costs, and pay; where no token is trained, and there are no
    images, one column.

    parts: how many equal parts rows can be cut into, for which they may need more padding.
    """
    layout = _shared_where_it_pays(batch, sharing, parts) or padded_rows(batch, parts)
    if len(layout.predicts) or batch.mm_inputs:
        return layout
    return Layout({"input_ids": _divisible(batch.input_ids[:, :1], parts)}, layout.predicts)


def _shared_where_it_pays(batch: Batch, cost: Cost | None, parts: int) -> Layout | None:
    if cost is None:
        return None
    groups = groups_of(batch)
    return shared_prompts(batch, groups, parts) if sharing_pays(groups, batch.input_ids.shape, cost) else None


def padded_rows(batch: Batch, parts: int = 1) -> Layout:
    """Right padding needs no mask in a causal model: no real token sees it."""
    row, column = batch.response_mask.nonzero(as_tuple=True)
    ids = _divisible(batch.input_ids, parts)
    media: dict[str, Tensor] = {}
    if batch.mm_inputs:
        assert parts == 1, "rows with images are not cut"
        media = joined(batch.mm_inputs, ids.device) | rows_of(batch).inputs(ids.device)
    return Layout({"input_ids": ids, **media}, row * ids.shape[1] + column - 1)


def _divisible(ids: Tensor, parts: int) -> Tensor:
    """Padded on the right to a width that `parts` divides."""
    more = -ids.shape[1] % parts
    return pad(ids, (0, more)) if more else ids


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
        body = sum(p.numel() for p in model.get_decoder().parameters() if id(p) not in embeddings)
        return cls(body / config.num_hidden_layers, 2.0 * config.hidden_size)


def can_share_prompts(model: PreTrainedModel) -> bool:
    """Whether the model takes a mask of our own: full attention in every layer, through PyTorch's sdpa kernels,
    and positions that come from position ids (rotary)."""
    config: Any = model.config.get_text_config()
    rotary = any(name.endswith("rotary_emb") for name, _ in model.named_modules())
    return math.isinf(reach(config)) and rotary and config._attn_implementation in TAKE_A_MASK


# Bytes of the mask, one per pair of positions: 128 MiB, or 11,585 positions of one group. Attention makes a copy in
# its own dtype, four times as large in float32. Padded rows need neither.
LARGEST_MASK = 1 << 27


@dataclass(frozen=True)
class Group:
    """One sequence of the shared layout: a prompt's length, and its responses' lengths by the row that holds each."""

    prompt: int
    responses: dict[int, int]

    @property
    def length(self) -> int:
        return self.prompt + sum(self.responses.values())


def groups_of(batch: Batch) -> list[Group]:
    """In one transfer from the device."""
    group, prompts, lengths = torch.stack([batch.group, batch.prompt_lengths, batch.lengths]).tolist()
    every = rows_by_group(group).values()
    return [Group(prompts[rows[0]], {row: lengths[row] - prompts[row] for row in rows}) for rows in every]


def sharing_pays(groups: Sequence[Group], shape: Sequence[int], cost: Cost) -> bool:
    """A masked attention over prompt and all responses grows with their square: it pays for short responses, and where
    its mask is not too large. shape: of the padded rows."""
    (rows, width), shared = shape, [group.length for group in groups]
    if len(shared) * max(shared) ** 2 > LARGEST_MASK:
        return False
    padded = rows * (width * cost.per_token + width**2 / 2 * cost.per_pair)
    return sum(shared) * cost.per_token + sum(length**2 for length in shared) * cost.per_pair < padded


def shared_prompts(batch: Batch, groups: Sequence[Group], parts: int = 1) -> Layout:
    """One sequence per group. [S, L] token ids and positions, [S, 1, L, L] bool mask (True = sees).

    Made on the host, then moved: on a device every one of these small pieces would be a launch of its own.
    """
    (rows, row_width), longest = batch.input_ids.shape, max(group.length for group in groups)
    width = longest + -longest % parts
    source, positions = np.zeros((2, len(groups), width), dtype=np.int64)  # source: flat indices of the batch's tokens
    owner = np.full((len(groups), width), -1)  # -1 padding, 0 prompt, 1.. response
    predicts = np.zeros((rows, row_width), dtype=np.int64)
    for s, group in enumerate(groups):
        end = prompt = group.prompt
        source[s, :end] = next(iter(group.responses)) * row_width + np.arange(end)
        positions[s, :end], owner[s, :end] = np.arange(end), 0
        for number, (row, length) in enumerate(group.responses.items(), start=1):
            start, end, place = end, end + length, prompt + np.arange(length)
            source[s, start:end], positions[s, start:end], owner[s, start:end] = row * row_width + place, place, number
            before = np.arange(start - 1, end - 1)
            before[:1] = prompt - 1  # the first token of every response is predicted by the prompt's last
            predicts[row, prompt : prompt + length] = s * width + before
    moved = (torch.from_numpy(array).to(batch.input_ids.device) for array in (source, positions, owner, predicts))
    where, places, owners, predicting = moved
    ids = batch.input_ids.flatten()[where] * (owners >= 0)
    inputs = {"input_ids": ids, "position_ids": places, "attention_mask": _sees(owners)}
    if batch.mm_inputs:
        inputs |= _shared_media(batch, groups, where)
    return Layout(inputs, predicting[batch.response_mask.bool()])


def _shared_media(batch: Batch, groups: Sequence[Group], where: Tensor) -> dict[str, Tensor]:
    """Each group's images once, and what the tokens at `where` [S, L] of the batch have beside their ids."""
    first = [batch.mm_inputs[next(iter(group.responses))] for group in groups]
    found = joined(first, where.device)
    for name, values in rows_of(batch).inputs(where.device).items():  # [B, T], positions [A, B, T]
        found[name] = values.flatten(-2)[..., where]
    return found


def _sees(owner: Tensor) -> Tensor:
    """[S, L] to [S, 1, L, L]: a token sees what stands before it in the prompt and in its own response."""
    key, query = owner[:, None, :], owner[:, :, None]
    sees = key == query
    sees |= key == 0
    return sees.tril_()[:, None]  # in place: it is the largest tensor here
