"""Which requests are decoded together: a finished row's place goes to the next sample that waits."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from lightrft.ranks.pulse import PULSE
from lightrft.rollouts.engines.base import Sampling
from lightrft.rollouts.engines.local.past import Past, Prompts
from lightrft.rollouts.engines.local.plain import Plain
from lightrft.rollouts.engines.local.samples import Sample, Samples
from lightrft.types import Generation, Request

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

REFILL_BELOW = 7 / 8  # rows are filled again when at most this share is alive
DROP_BELOW = {"cpu": 7 / 8}  # where no others wait, rows are dropped: dropping copies the cache
DROP_BELOW_ELSEWHERE = 1 / 2  # and a step is recorded anew
SPARE = 64  # columns of the cache beyond the longest row: rows that come later begin further on, until all move back


class Decoding:
    """Requests, the longest prompts first, from their prompts to their last tokens.

    batches: of prompts that went through the model together. plain: the model for steps without the library's modules.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        end_ids: Sequence[int],
        requests: Sequence[Request],
        sampling: Sampling,
        plain: Plain | None = None,
    ) -> None:
        self.plain = plain
        self.model, self.tokenizer, self.sampling, self.requests = model, tokenizer, sampling, requests
        device = next(model.parameters()).device
        self.ends = torch.tensor([] if sampling.ignore_eos else list(end_ids), dtype=torch.long, device=device)
        self.batches, self.next = 0, 0  # the first request that has not gone through the model
        self.waiting: deque[tuple[Sample, int]] = deque()  # samples of `prompts`, and which of these is theirs
        self.found: list[dict[int, Generation]] = [{} for _ in requests]
        self.complete = 0  # requests that have all their generations

    def run(self, *, at_once: int, refill: bool, enough: int) -> list[list[Generation]]:
        """One list per request, in the order of its seeds; empty for requests that were given up.

        at_once: most requests whose samples are decoded together. refill: whether others may come in before all of
        these have ended, where the model's cache lets them. enough: requests after which the others are given up.
        """
        self.at_once, self.refill = at_once, refill
        while (self.waiting or self.next < len(self.requests)) and self.complete < enough:
            self._start()
            while self.samples.alive and self.complete < enough:
                PULSE.beat()
                logits = self.past.forward(self.samples.latest)
                self.samples.take(logits)
                self._settle()
        pairs = zip(self.found, self.requests, strict=True)
        return [[made[i] for i in range(request.n)] if len(made) == request.n else [] for made, request in pairs]

    def _start(self) -> None:
        """A batch of its own, of as many requests as may be decoded together."""
        if not self.waiting:
            self._read_prompts(self.at_once)
        samples, which = self._next_samples(len(self.waiting))
        self.past = Past(self.prompts, which, self.plain)
        self.samples = Samples(samples, self.sampling, self.tokenizer, self.ends)
        self._first_tokens(range(len(samples)), which)
        self._settle()

    def _read_prompts(self, count: int) -> None:
        """Runs the next `count` requests' prompts through the model, once each; their samples wait from now on."""
        PULSE.beat()
        self.batches += 1
        chosen = self.requests[self.next : self.next + count]
        more = self.refill and self.next + count < len(self.requests)
        room = self.sampling.max_new_tokens + (SPARE if more else 0)
        media = [request.mm_inputs for request in chosen]
        self.prompts = Prompts(self.model, [request.prompt_ids for request in chosen], room, media)
        for place, request in enumerate(chosen):
            samples = (Sample(self.next + place, number, seed) for number, seed in enumerate(request.seeds))
            self.waiting.extend((sample, place) for sample in samples)
        self.next += len(chosen)

    def _next_samples(self, count: int) -> tuple[list[Sample], list[int]]:
        taken = [self.waiting.popleft() for _ in range(min(count, len(self.waiting)))]
        return [sample for sample, _ in taken], [place for _, place in taken]

    def _first_tokens(self, rows: Sequence[int], which: Sequence[int]) -> None:
        self.samples.take(self.prompts.logits[torch.tensor(which, device=self.ends.device)], rows)

    def _settle(self) -> None:
        """Rows that have ended make place, for others or for none."""
        while self._book_ended():
            alive, rows = len(self.samples.alive), len(self.samples.of)
            if alive and self._others_may_come():
                if alive <= REFILL_BELOW * rows:
                    self._refill()
            elif alive and alive <= DROP_BELOW.get(self.ends.device.type, DROP_BELOW_ELSEWHERE) * rows:
                self._drop()
        if self.samples.alive:
            self.past.forget_before(self.samples.alive)

    def _book_ended(self) -> bool:
        ended = self.samples.ended()
        for sample, ids, logprobs, reason, mask in ended:
            prompt = self.requests[sample.request].prompt_ids
            made = self.found[sample.request]
            made[sample.number] = Generation(prompt, ids, logprobs, reason, mask)
            self.complete += len(made) == self.requests[sample.request].n
        return bool(ended)

    def _others_may_come(self) -> bool:
        return self.refill and self.past.takes_others and bool(self.waiting or self.next < len(self.requests))

    def _drop(self) -> None:
        alive = self.samples.alive
        self.past.keep(alive)
        self.samples.keep(alive)

    def _refill(self) -> None:
        """The next samples take free rows, and their first tokens."""
        free = self.samples.free
        if not self.waiting:
            self._read_prompts(self._requests_for(len(free)))
        samples, which = self._next_samples(len(free))
        rows = free[: len(samples)]
        self.past.put(rows, self.prompts, which)
        self.samples.put(rows, samples)
        self._first_tokens(rows, which)

    def _requests_for(self, rows: int) -> int:
        """How many of the next requests fill so many rows."""
        count = 0
        while rows > 0 and count < self.at_once and self.next + count < len(self.requests):
            rows -= len(self.requests[self.next + count].seeds)
            count += 1
        return count
