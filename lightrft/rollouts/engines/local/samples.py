"""What is drawn for the rows that are decoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isnan
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from lightrft.errors import RunFailed
from lightrft.rollouts.engines.base import Sampling
from lightrft.rollouts.engines.local.masks import Masks
from lightrft.rollouts.engines.noise import uniforms
from lightrft.rollouts.engines.sampling import draw, draw_hot

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lightrft.types import SamplingMask

NOT_FINITE = (
    "the policy's logits are not finite; where it has learned already, lower --actor_learning_rate and go on from an "
    "older checkpoint, else look for NaN in the weights of --pretrain"
)
LOOK_EVERY = {"cpu": 1}  # tokens after which it is asked which rows have ended
ELSEWHERE = 8  # a GPU has to be waited for


class Sample(NamedTuple):
    """The response number `number` of a request."""

    request: int
    number: int
    seed: int


class Ended(NamedTuple):
    """What was drawn for a sample that is complete."""

    sample: Sample
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    reason: str
    mask: SamplingMask | None


class Samples:
    """Row i is one sample until that ends, and then free for another. Tensors are [rows] and [rows, new tokens].

    made: tokens that were drawn, also those after the end, which are not kept.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        sampling: Sampling,
        tokenizer: PreTrainedTokenizerBase,
        ends: Tensor,
    ) -> None:
        self.sampling, self.tokenizer, self.ends, device = sampling, tokenizer, ends, ends.device
        shape = (len(samples), sampling.max_new_tokens)
        self.of: list[Sample | None] = list(samples)
        self.made = [0] * len(samples)
        self.noise = torch.empty(shape, dtype=torch.float64, device=device)
        self.tokens = torch.zeros(shape, dtype=torch.long, device=device)
        self.logprobs = torch.zeros(shape, device=device)
        self.length = torch.zeros(shape[0], dtype=torch.long, device=device)
        self.stopped = torch.zeros(shape[0], dtype=torch.bool, device=device)
        self.latest = torch.zeros(shape[0], dtype=torch.long, device=device)
        self.count = torch.zeros(shape[0], dtype=torch.long, device=device)  # `made`, where the device can read it
        self.rows = torch.arange(shape[0], device=device)
        self.masks = Masks(len(samples)) if sampling.returns_mask else None
        self.looked = 0
        self.put(range(len(samples)), samples)

    @property
    def alive(self) -> list[int]:
        return [row for row, sample in enumerate(self.of) if sample is not None]

    @property
    def free(self) -> list[int]:
        return [row for row, sample in enumerate(self.of) if sample is None]

    def put(self, rows: Sequence[int], samples: Sequence[Sample]) -> None:
        """These rows are these samples from now on."""
        for row, sample in zip(rows, samples, strict=True):
            self.of[row], self.made[row] = sample, 0
        noise = uniforms([sample.seed for sample in samples], self.sampling.max_new_tokens)
        places = torch.tensor(list(rows), device=self.ends.device)
        self.noise[places] = torch.from_numpy(noise).to(self.ends.device)
        self.length[places], self.stopped[places], self.count[places] = 0, False, 0
        if self.masks is not None:
            self.masks.put(rows)

    def keep(self, rows: Sequence[int]) -> None:
        """These rows alone, in this order."""
        self.of, self.made = [self.of[row] for row in rows], [self.made[row] for row in rows]
        places = torch.tensor(list(rows), device=self.ends.device)
        for name in ("noise", "tokens", "logprobs", "length", "stopped", "latest", "count"):
            setattr(self, name, getattr(self, name)[places])
        self.rows = self.rows[: len(rows)]
        if self.masks is not None:
            self.masks.keep(rows)

    def take(self, logits: Tensor, chosen: Sequence[int] | None = None) -> None:
        """Draws the next token of each row, or of those chosen, logits [rows, V], and books it for those that have not
        stopped. Nothing but the first tokens of rows that come waits for the device."""
        places = self.rows if chosen is None else torch.tensor(list(chosen), device=self.ends.device)
        rows = range(len(self.of)) if chosen is None else chosen
        most = self.sampling.max_new_tokens
        cells = places * most + self.count[places].clamp_(max=most - 1)
        hot = self.sampling.first_temperature is not None and self.made[rows[0]] == 0
        token, logprob, kept = (draw_hot if hot else draw)(logits, self.noise.view(-1)[cells], self.sampling)
        goes_on = ~self.stopped[places]
        if self.masks is not None:
            self.masks.note(places, goes_on, kept)
        self.tokens.view(-1).index_copy_(0, cells, token)  # of rows that have stopped nobody reads what comes after
        self.logprobs.view(-1).index_copy_(0, cells, logprob)
        self.latest[places] = token
        self.length[places] += goes_on
        self.count[places] += 1
        self.stopped[places] |= torch.isin(token, self.ends) | logprob.isnan()
        for row in rows:
            self.made[row] += 1
        if self.sampling.stop:
            self._look_for_stop_strings(rows)

    def _look_for_stop_strings(self, rows: Sequence[int]) -> None:
        window = self.sampling.stop_window
        stopped, lengths = self.stopped.tolist(), self.length.tolist()
        going = [row for row in rows if not stopped[row]]
        if not going:  # of no rows some versions of the tokenizer make one text
            return
        tails = [self.tokens[row, max(0, lengths[row] - window) : lengths[row]].tolist() for row in going]
        for row, tail in zip(going, self.tokenizer.batch_decode(tails), strict=True):
            if any(text in tail for text in self.sampling.stop):
                self.stopped[row] = True

    def ended(self) -> list[Ended]:
        """Samples that are complete; their rows are free from now on."""
        most = self.sampling.max_new_tokens
        whole = {row for row in self.alive if self.made[row] >= most}
        self.looked += 1
        if not whole and self.looked % LOOK_EVERY.get(self.ends.device.type, ELSEWHERE):
            return []
        stopped = self.stopped.tolist()  # here a token waits for the device, and nowhere else
        if self.masks is not None:
            self.masks.settle()
        rows = [row for row in self.alive if stopped[row] or row in whole]
        return list(self._leave(rows, stopped))

    def _leave(self, rows: Sequence[int], stopped: Sequence[bool]) -> Iterator[Ended]:
        lengths, tokens, logprobs = (each[rows].tolist() for each in (self.length, self.tokens, self.logprobs))
        for place, row in enumerate(rows):
            n, sample = lengths[place], self.of[row]
            if any(map(isnan, logprobs[place][:n])):
                raise RunFailed(NOT_FINITE)
            assert sample is not None
            self.of[row] = None
            reason = "stop" if stopped[row] else "length"
            mask = None if self.masks is None else self.masks.take(row)
            yield Ended(sample, tuple(tokens[place][:n]), tuple(logprobs[place][:n]), reason, mask)
