"""How the rows of a batch are laid out for the model.

Padded: one row per sample. Shared: the prompt of a group once, its responses behind it, each seeing the prompt and
itself only. Packed: all of these, or all samples, in one row, without padding. All give the same log-probabilities; the
shared layout saves computing a prompt once per sample, the packed one padding. What a token sees where a row holds more
than one sequence is computed by models/segments.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

import lightrft.models.attention  # noqa: F401  it takes the place of the library's, which would not read segments
from lightrft.groups import rows_by_group
from lightrft.models.adapters import computed_with
from lightrft.models.media import joined, rows_of
from lightrft.models.quantised import numbers_in_4_bits
from lightrft.models.segments import Segments, Tree

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from lightrft.batch import Batch


@dataclass(frozen=True)
class Layout:
    """inputs: what the model is called with; predicts [N]: for each trained token of the batch, in row-major order,
    the flat index of the position whose hidden state predicts it.

    here: which of the batch's trained tokens those are, [all] bool; None = all of them. segments: what attention sees
    of whole rows, where these hold more than a sequence each.
    """

    inputs: dict[str, Tensor]
    predicts: Tensor
    here: Tensor | None = None
    segments: Segments | None = None

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
        """The positions of one of so many equal parts of every row."""
        width = self.inputs["input_ids"].shape[1]
        length = width // parts
        start = number * length
        inputs = {"position_ids": torch.arange(width, device=self.predicts.device)[None], **self.inputs}
        own = {name: inputs[name][:, start : start + length] for name in ("input_ids", "position_ids")}
        row, column = self.predicts // width, self.predicts % width - start
        here = (column >= 0) & (column < length)
        return Layout({**inputs, **own}, (row * length + column)[here], here, self.segments)

    @property
    def told(self) -> dict[str, Any]:
        """What the model is called with, and attention through it.

        A mask of a row's size would be its square; this one, which hides all, is what a model that does not hand on
        `segments` would use: it gives zeros (NaN in older versions of torch). models/segment_check.py tries each model.
        """
        if self.segments is None:
            return self.inputs
        hides = torch.zeros(1, 1, 1, 1, dtype=torch.bool, device=self.predicts.device)
        return {**self.inputs, "attention_mask": hides, "segments": self.segments}


def lay_out(batch: Batch, sharing: Cost | None, parts: int = 1, *, packs: bool = False) -> Layout:
    """Shared prompts where they are allowed, at these costs, and pay; where no token is trained, and there are no
    images, one column.

    parts: how many equal parts rows can be cut into, for which they may need more padding. packs: all in one row.
    """
    layout = _several_in_a_row(batch, sharing, parts, packs) or padded_rows(batch, parts)
    if len(layout.predicts) or batch.mm_inputs:
        return layout
    return Layout({"input_ids": _divisible(batch.input_ids[:, :1], parts)}, layout.predicts)


def _several_in_a_row(batch: Batch, cost: Cost | None, parts: int, packs: bool) -> Layout | None:
    if packs:
        return rows_of_groups(batch, [groups_of(batch, shared=cost is not None)], parts)
    if cost is None:
        return None
    groups = groups_of(batch)
    pays = sharing_pays(groups, batch.input_ids.shape, cost)
    return rows_of_groups(batch, [[group] for group in groups], parts) if pays else None


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
        body = sum(p.numel() for p in computed_with(model.get_decoder()).values() if id(p) not in embeddings)
        body += numbers_in_4_bits(model.get_decoder())
        return cls(body / config.num_hidden_layers, 2.0 * config.hidden_size)


@dataclass(frozen=True)
class Group:
    """Samples with one prompt: its length, and their responses' lengths by the row that holds each."""

    prompt: int
    responses: dict[int, int]

    @property
    def tree(self) -> Tree:
        return Tree(self.prompt, tuple(self.responses.values()))


def groups_of(batch: Batch, *, shared: bool = True) -> list[Group]:
    """In one transfer from the device. Not shared: every row by itself."""
    group, prompts, lengths = torch.stack([batch.group, batch.prompt_lengths, batch.lengths]).tolist()
    every = rows_by_group(group).values() if shared else [[row] for row in range(len(group))]
    return [Group(prompts[rows[0]], {row: lengths[row] - prompts[row] for row in rows}) for rows in every]


def sharing_pays(groups: Sequence[Group], shape: Sequence[int], cost: Cost) -> bool:
    """A row for each group is padded to the longest, so a group of many samples beside one of few may cost more than
    it saves. shape: of the padded rows."""
    (rows, width), trees = shape, [group.tree for group in groups]
    padded = rows * (width * cost.per_token + width**2 / 2 * cost.per_pair)
    shared = len(trees) * max(tree.length for tree in trees) * cost.per_token
    return shared + sum(tree.pairs for tree in trees) * cost.per_pair < padded


def rows_of_groups(batch: Batch, rows: Sequence[Sequence[Group]], parts: int = 1) -> Layout:
    """[S, L] token ids and positions: in each row these groups, a prompt and its responses, one behind the other.

    Made on the host, then moved: on a device every one of these small pieces would be a launch of its own.
    """
    longest = max(sum(group.tree.length for group in groups) for groups in rows)
    width = longest + -longest % parts
    source, positions = np.zeros((2, len(rows), width), dtype=np.int64)  # source: flat indices of the batch's tokens
    filled = np.zeros((len(rows), width), dtype=bool)
    predicts = np.zeros(tuple(batch.input_ids.shape), dtype=np.int64)
    for s, groups in enumerate(rows):
        end = 0
        for group in groups:
            place = slice(end, end + group.tree.length)
            _lay_group(group, source[s, place], positions[s, place], predicts, s * width + end)
            end, filled[s, place] = place.stop, True
    moved = (torch.from_numpy(array).to(batch.input_ids.device) for array in (source, positions, filled, predicts))
    where, places, real, predicting = moved
    inputs = {"input_ids": batch.input_ids.flatten()[where] * real, "position_ids": places}
    if batch.mm_inputs:
        inputs |= _media(batch, [group for groups in rows for group in groups], where)
    segments = Segments(tuple(tuple(group.tree for group in groups) for groups in rows), width)
    return Layout(inputs, predicting[batch.response_mask.bool()], segments=segments)


def _lay_group(group: Group, source: np.ndarray, positions: np.ndarray, predicts: np.ndarray, start: int) -> None:
    """Where its tokens [n] come from and stand, and which of the positions from `start` on predicts each."""
    end, row_width = group.prompt, predicts.shape[1]
    source[:end] = next(iter(group.responses)) * row_width + np.arange(end)
    positions[:end] = np.arange(end)
    for row, length in group.responses.items():
        place = group.prompt + np.arange(length)
        source[end : end + length], positions[end : end + length] = row * row_width + place, place
        before = np.arange(end - 1, end + length - 1)
        before[:1] = group.prompt - 1  # the first token of every response is predicted by the prompt's last
        predicts[row, place] = start + before
        end += length


def _media(batch: Batch, groups: Sequence[Group], where: Tensor) -> dict[str, Tensor]:
    """Each group's images once, in the order of the groups, and what the tokens at `where` [S, L] of the batch have
    beside their ids."""
    first = [batch.mm_inputs[next(iter(group.responses))] for group in groups]
    found = joined(first, where.device)
    for name, values in rows_of(batch).inputs(where.device).items():  # [B, T], positions [A, B, T]
        found[name] = values.flatten(-2)[..., where]
    return found
