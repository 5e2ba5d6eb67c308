"""The images and videos of a batch, as its model takes them beside token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

if TYPE_CHECKING:
    from lightrft.batch import Batch
    from lightrft.types import MediaInputs


def joined(media: Sequence[MediaInputs | None], device: torch.device) -> dict[str, Tensor]:
    """The features of all prompts, by name, along their first dimension; smaller ones are padded with zeros.

    The model takes one after another for the placeholders in the rows, in their order.
    """
    names = dict.fromkeys(name for each in media if each is not None for name in each.features)
    return {name: _joined([each.features[name] for each in _having(media, name)]).to(device) for name in names}


def _having(media: Sequence[MediaInputs | None], name: str) -> list[MediaInputs]:
    return [each for each in media if each is not None and name in each.features]


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    largest = torch.tensor([tensor.shape[1:] for tensor in tensors]).amax(0).tolist()
    return torch.cat([pad(tensor, _room(tensor.shape[1:], largest)) for tensor in tensors])


def _room(shape: Sequence[int], largest: Sequence[int]) -> list[int]:
    """As `pad` takes it: before and after, from the last dimension on."""
    return [side for here, most in zip(shape[::-1], largest[::-1], strict=True) for side in (0, most - here)]


class Rows:
    """What the rows of a batch have beside their ids: arrays as wide as these.

    per_token: [B, T] by the model's names. positions: [A, B, T], or None where the model counts 0, 1, 2 … by itself.
    """

    def __init__(self, media: Sequence[MediaInputs | None], starts: Sequence[int], prompts: Sequence[int], width: int):
        """starts, prompts: of each row, the column of its first token, and the tokens of its prompt."""
        self.places = list(zip(media, starts, prompts, strict=True)) if any(media) else []
        self.width = width
        self.per_token = {name: self._filled(name) for name in self._names()}
        self.positions = self._positions()

    def inputs(self, device: torch.device) -> dict[str, Tensor]:
        found: dict[str, Any] = {name: torch.from_numpy(array).to(device) for name, array in self.per_token.items()}
        if self.positions is not None:
            found["position_ids"] = torch.from_numpy(self.positions).to(device)
        return found

    def _names(self) -> dict[str, np.dtype]:
        found = {}
        for media, _, _ in self.places:
            found |= {name: values.numpy().dtype for name, values in (media.per_token if media else {}).items()}
        return found

    def _filled(self, name: str) -> np.ndarray:
        array = np.zeros((len(self.places), self.width), dtype=self._names()[name])
        for row, (media, start, prompt) in enumerate(self.places):
            if media is not None and name in media.per_token:
                array[row, start : start + prompt] = media.per_token[name].numpy()
        return array

    def _positions(self) -> np.ndarray | None:
        """A response goes on from the last position of its prompt."""
        axes = next((len(m.positions) for m, _, _ in self.places if m is not None and m.positions is not None), None)
        if axes is None:
            return None
        array = np.zeros((axes, len(self.places), self.width), dtype=np.int64)
        for row, (media, start, prompt) in enumerate(self.places):
            array[:, row, start:] = np.arange(self.width - start) + ahead(media, prompt)
            if media is not None and media.positions is not None:
                array[:, row, start : start + prompt] = media.positions.numpy()
            else:
                array[:, row, start : start + prompt] = np.arange(prompt)
        return array


def ahead(media: MediaInputs | None, prompt: int) -> int:
    """By how much the positions of a response are ahead of its places in the row; prompt: its tokens."""
    if media is None or media.positions is None:
        return 0
    return int(media.positions[:, -1].max()) + 1 - prompt


def rows_of(batch: Batch) -> Rows:
    """Of right-padded rows."""
    media: Sequence[MediaInputs | None] = batch.mm_inputs
    prompts = batch.prompt_lengths.tolist() if media else []
    return Rows(media, [0] * len(media), prompts, batch.input_ids.shape[1])


def counted_from(model: Any) -> Any:
    """The model's own function of positions, where it counts them on several axes; else None."""
    inner = getattr(model, "model", model)
    return getattr(inner, "get_rope_index", None)


def own_positions(count: Any, inputs: Mapping[str, Tensor]) -> Tensor | None:
    """[A, T] of one prompt, by the function of `counted_from`; inputs: all that its processor made, for one row."""
    import inspect

    known = inspect.signature(count).parameters
    positions, _ = count(**{name: value for name, value in inputs.items() if name in known})
    return positions[:, 0]
