"""One batch of requests, from their prompts to their last tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightrft.errors import RunFailed
from lightrft.models.token_model import head_on
from lightrft.ranks.pulse import PULSE
from lightrft.rollouts.engines.base import Sampling
from lightrft.rollouts.engines.kv_cache import cache_parameter, make_cache
from lightrft.rollouts.engines.noise import uniforms
from lightrft.rollouts.engines.sampling import draw, draw_hot
from lightrft.types import Generation, Request

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NOT_FINITE = (
    "the policy's logits are not finite; where it has learned already, lower --actor_learning_rate and go on from an "
    "older checkpoint, else look for NaN in the weights of --pretrain"
)
DROP_BELOW = 7 / 8  # rows are dropped when at most this share is alive: dropping copies the cache


class Decoding:
    """One batch of requests from prefill to the last token. Buffers have one row per sample, `[rows, new tokens]`."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        end_ids: Sequence[int],
        requests: Sequence[Request],
        sampling: Sampling,
        enough: int,
    ) -> None:
        self.model, self.tokenizer, self.sampling, self.requests = model, tokenizer, sampling, requests
        self.enough = enough  # requests after which the others are given up
        self.device = next(model.parameters()).device
        self.ends = torch.tensor([] if sampling.ignore_eos else list(end_ids), dtype=torch.long, device=self.device)
        seeds = [seed for request in requests for seed in request.seeds]
        shape = (len(seeds), sampling.max_new_tokens)
        self.noise = torch.from_numpy(uniforms(seeds, sampling.max_new_tokens)).to(self.device)
        self.tokens = torch.zeros(shape, dtype=torch.long, device=self.device)
        self.logprobs = torch.zeros(shape, device=self.device)
        self.length = torch.zeros(shape[0], dtype=torch.long, device=self.device)
        self.stopped = torch.zeros(shape[0], dtype=torch.bool, device=self.device)
        self.rows = torch.arange(shape[0], device=self.device)  # which sample each row of the cache belongs to
        self.cache, self.past = make_cache(model.config, sampling.max_new_tokens), cache_parameter(model)

    def run(self) -> list[list[Generation]]:
        logits = self._prefill()
        for t in range(self.sampling.max_new_tokens):
            token = self._take(logits, t)
            PULSE.beat()
            alive = (~self.stopped[self.rows]).nonzero()[:, 0]  # here a token waits for the device, and nowhere else
            if t + 1 == self.sampling.max_new_tokens or not len(alive):
                break
            if self.enough < len(self.requests) and sum(self._done()) >= self.enough:
                return self._collect(self._done())
            if len(alive) <= DROP_BELOW * len(self.rows):
                self.rows, token = self.rows[self._keep(alive)], token[alive]
            logits = self._forward(token[:, None], self.width + t + 1, self.last + t + 1)
        return self._collect([True] * len(self.requests))

    def _done(self) -> list[bool]:
        """Of each request, whether all its rows have stopped."""
        return [bool(rows.all()) for rows in self.stopped.split([request.n for request in self.requests])]

    def _prefill(self) -> Tensor:
        """Prompts, left-padded, through the model once; then every sample gets its prompt's row of the cache."""
        lengths = [len(request.prompt_ids) for request in self.requests]
        self.width, room = max(lengths), self.sampling.max_new_tokens
        self.padded = min(lengths) < self.width
        padded = [[0] * (self.width - len(r.prompt_ids)) + list(r.prompt_ids) for r in self.requests]
        self.mask = torch.tensor([[0] * (self.width - n) + [1] * (n + room) for n in lengths], device=self.device)
        positions = (self.mask[:, : self.width].cumsum(-1) - 1).clamp(min=0)
        self.last = positions[:, -1:]
        with head_on(self.model, lambda hidden: hidden[:, -1:]):
            logits = self._forward(torch.tensor(padded, device=self.device), self.width, positions)
        fan_out = [i for i, request in enumerate(self.requests) for _ in request.seeds]
        return logits[self._keep(torch.tensor(fan_out, device=self.device))]

    def _keep(self, rows: Tensor) -> Tensor:
        self.cache.reorder_cache(rows)  # pyright: ignore[reportArgumentType]  (it says LongTensor)
        self.mask, self.last = self.mask[rows], self.last[rows]
        return rows

    def _forward(self, token_ids: Tensor, length: int, positions: Tensor) -> Tensor:
        """token_ids [rows, n] at `positions`, the last of `length` columns, to the logits [rows, V] after the last of
        them. Without padding neither a mask nor positions are needed."""
        extra: dict[str, Any] = {self.past: self.cache}
        if self.padded:
            extra |= {"attention_mask": self.mask[:, :length], "position_ids": positions}
        return self.model(input_ids=token_ids, use_cache=True, **extra).logits[:, -1]

    def _take(self, logits: Tensor, t: int) -> Tensor:
        """Draws token t of every row in the batch, and books it for those that have not stopped before."""
        hot = t == 0 and self.sampling.first_temperature is not None
        token, logprob = (draw_hot if hot else draw)(logits, self.noise[self.rows, t], self.sampling)
        self.tokens[self.rows, t], self.logprobs[self.rows, t] = token, logprob
        self.length[self.rows] += (~self.stopped[self.rows]).long()
        self.stopped[self.rows] |= torch.isin(token, self.ends) | logprob.isnan()
        if self.sampling.stop:
            self._look_for_stop_strings(t)
        return token

    def _look_for_stop_strings(self, t: int) -> None:
        window = 1 + max(len(text.encode()) for text in self.sampling.stop)  # a token is at least one byte
        alive = self.rows[~self.stopped[self.rows]]
        tails = self.tokenizer.batch_decode(self.tokens[alive, max(0, t + 1 - window) : t + 1])
        hit = [any(text in tail for text in self.sampling.stop) for tail in tails]
        self.stopped[alive] = torch.tensor(hit, dtype=torch.bool, device=self.device)

    def _collect(self, done: Sequence[bool]) -> list[list[Generation]]:
        """done: of each request; the others have no generation."""
        taken = torch.arange(self.logprobs.shape[1], device=self.device) < self.length[:, None]
        if bool((self.logprobs.isnan() & taken).any()):
            raise RunFailed(NOT_FINITE)
        lengths, stopped = self.length.tolist(), self.stopped.tolist()
        tokens, logprobs = self.tokens.tolist(), self.logprobs.tolist()
        found, row = [], 0
        for request, is_done in zip(self.requests, done, strict=True):
            found.append([])
            for _ in request.seeds:
                n, reason = lengths[row], "stop" if stopped[row] else "length"
                found[-1].append(
                    Generation(request.prompt_ids, tuple(tokens[row][:n]), tuple(logprobs[row][:n]), reason)
                )
                row += 1
            if not is_done:
                found[-1].clear()
        return found
