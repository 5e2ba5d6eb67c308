"""What the model has seen of each row: its cache, and where in it the row's tokens stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightrft.models.media import Rows, ahead, joined
from lightrft.models.output_head import head_on
from lightrft.rollouts.engines.kv_cache import cache_parameter, make_cache, roomy_layers
from lightrft.rollouts.engines.local.plain import Plain, PlainSteps, plain_steps
from lightrft.rollouts.engines.local.replay import Replay, replay_of
from lightrft.rollouts.engines.threads import one_thread

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from lightrft.types import MediaInputs


class Prompts:
    """Prompts, left-padded to one width, that have gone through the model once. logits [prompts, V]: of what follows.

    media: what each has beside its ids, if any has. room: for so many more tokens, in a cache that `Past` goes on with.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        prompts: Sequence[Sequence[int]],
        room: int,
        media: Sequence[MediaInputs | None] = (),
    ) -> None:
        self.model, self.device = model, next(model.parameters()).device
        self.lengths = [len(ids) for ids in prompts]
        self.width, self.room = max(self.lengths), room
        media = media if any(media) else [None] * len(prompts)
        self.ahead = [ahead(each, length) for each, length in zip(media, self.lengths, strict=True)]
        self.cache = make_cache(model.config, room)
        padded = [[0] * (self.width - len(ids)) + list(ids) for ids in prompts]
        extra: dict[str, Any] = {cache_parameter(model): self.cache}
        if min(self.lengths) < self.width:
            mask = torch.tensor([[0] * (self.width - n) + [1] * n for n in self.lengths], device=self.device)
            extra |= {"attention_mask": mask, "position_ids": (mask.cumsum(-1) - 1).clamp(min=0)}
        if any(media):
            starts = [self.width - length for length in self.lengths]
            rows = Rows(media, starts, self.lengths, self.width)
            extra |= joined(media, self.device) | rows.inputs(self.device)
        with head_on(model, lambda hidden: hidden[:, -1:]):
            found = model(input_ids=torch.tensor(padded, device=self.device), use_cache=True, **extra)
        self.logits = found.logits[:, -1]


class Past:
    """Rows over a cache, each one of `prompts` and what came after it. Their latest tokens share a column.

    Columns are numbered from the front of the cache; `first` is the first that a living row needs. starts: the column
    of each row's first token; ahead: by how much its positions are further than its columns (of images). Where rows
    have neither padding nor images the model needs no mask and no positions. quick: a way through a step that is not
    the library's; plain: what one way needs.
    """

    def __init__(self, prompts: Prompts, which: Sequence[int], plain: Plain | None = None) -> None:
        self.model, self.device, self.cache = prompts.model, prompts.device, prompts.cache
        self.parameter, self.layers = cache_parameter(self.model), roomy_layers(self.cache)
        self._reorder(which)
        self.starts = [prompts.width - prompts.lengths[i] for i in which]
        self.ahead = [prompts.ahead[i] for i in which]
        self.first, self.end, self.capacity = 0, prompts.width, prompts.width + prompts.room
        self.padded = max(prompts.lengths) > min(prompts.lengths) or any(self.ahead)
        self._make_mask()
        self.plain, self.quick = plain, self._quick_way(plain)

    def _quick_way(self, plain: Plain | None) -> Replay | PlainSteps | None:
        return replay_of(self) or plain_steps(self, plain)

    @property
    def takes_others(self) -> bool:
        """Whether a row's place can be given to another prompt."""
        return self.layers is not None

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [rows], the next of each, to the logits [rows, V] after them."""
        if self.end == self.capacity:
            self._move_to_front()
        logits = None if self.quick is None else self._quickly(self.quick, tokens)
        logits = self._started(tokens) if logits is None else logits
        self.end += 1
        return logits

    def _quickly(self, quick: Replay | PlainSteps, tokens: Tensor) -> Tensor | None:
        """The first step is computed in both ways, and their logits are compared; None where it has to be started."""
        expected = None if quick.trusted else self._started(tokens)
        try:
            logits = quick.forward(tokens)
            if expected is not None:
                quick.compare(logits, expected)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # what a model does between its kernels can forbid a recording in any way
            quick.refuse(error)
            self.quick = None
            self._end_at(self.end)  # once more: the quick step may have written into the column
            return None
        self._end_at(self.end + 1)
        return logits

    def _end_at(self, column: int) -> None:
        for layer in self.layers or ():
            layer.end = column

    def _started(self, tokens: Tensor) -> Tensor:
        """Kernel by kernel."""
        extra: dict[str, Any] = {self.parameter: self.cache}
        if self.padded:
            mask = self.mask[:, self.first : self.end + 1]
            extra |= {"attention_mask": mask, "position_ids": self.end - self.origins}
        with one_thread(len(tokens)):
            return self.model(input_ids=tokens[:, None], use_cache=True, **extra).logits[:, -1]

    def put(self, rows: Sequence[int], prompts: Prompts, which: Sequence[int]) -> None:
        """Row rows[i] becomes prompts' row which[i], as if it had been there from the start."""
        others = roomy_layers(prompts.cache)
        assert self.layers is not None and others is not None
        places, sources = (torch.tensor(list(each), device=self.device) for each in (rows, which))
        for layer, other in zip(self.layers, others, strict=True):
            layer.put(places, other, sources)
        for row, source in zip(rows, which, strict=True):
            self.starts[row] = self.end - prompts.lengths[source]
            self.ahead[row] = prompts.ahead[source]
        self.padded = True
        self._make_mask()

    def keep(self, rows: Sequence[int]) -> None:
        """These rows alone, in this order; the cache is copied."""
        self._reorder(rows)
        self.starts, self.ahead = [self.starts[row] for row in rows], [self.ahead[row] for row in rows]
        self._left(self.first)
        self.quick = self._quick_way(self.plain)  # the buffers are others

    def forget_before(self, rows: Sequence[int]) -> None:
        """What lies before the first tokens of all `rows` is not looked at any more."""
        first = min(self.starts[row] for row in rows)
        if self.layers is not None and first > self.first:
            self.first, self.padded = first, True
            for layer in self.layers:
                layer.begin_at(first)

    def _move_to_front(self) -> None:
        assert self.layers is not None and self.first, "the columns are those of the longest row"
        for layer in self.layers:
            layer.move_to_front()
        self._left(self.first)

    def _reorder(self, rows: Sequence[int]) -> None:
        self.cache.reorder_cache(torch.tensor(list(rows), device=self.device))  # pyright: ignore[reportArgumentType]

    def _left(self, columns: int) -> None:
        """So many columns went from the front of the cache."""
        self.starts = [max(start - columns, 0) for start in self.starts]
        self.first, self.end = self.first - columns, self.end - columns
        self._make_mask()

    def _make_mask(self) -> None:
        self.columns = torch.tensor(self.starts, device=self.device)[:, None]
        self.origins = self.columns - torch.tensor(self.ahead, device=self.device)[:, None]  # of positions
        self.mask = (torch.arange(self.capacity, device=self.device) >= self.columns).long()
        self.hides = torch.where(self.mask == 1, 0.0, -torch.inf)  # to be added to scores
