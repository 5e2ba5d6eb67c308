"""The engine itself: which weights it samples from, and which requests are decoded together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import groupby
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from lightrft.rollouts.engines.attention import one_token_attention, without_cudnn
from lightrft.rollouts.engines.base import Sampling
from lightrft.rollouts.engines.local.decoding import Decoding
from lightrft.rollouts.engines.local.own_weights import OwnWeights
from lightrft.rollouts.engines.local.packed import packed
from lightrft.rollouts.engines.local.plain import plain_of
from lightrft.types import Generation, Request

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class LocalEngine:
    """borrow: a context manager that yields the training model with whole, current weights.

    equal_lengths: only prompts of one length are decoded together, for models that padding before a prompt would change
    (engines/probe.py). own: weights that it samples from in place of the training model's.
    """

    def __init__(
        self,
        borrow: Callable[[], AbstractContextManager[PreTrainedModel]],
        tokenizer: PreTrainedTokenizerBase,
        end_ids: Iterable[int],
        equal_lengths: bool = False,
        own: OwnWeights | None = None,
    ) -> None:
        self.borrow, self.tokenizer, self.end_ids = borrow, tokenizer, sorted(end_ids)
        self.equal_lengths, self.own, self.batches, self.version = equal_lengths, own, 0, 0
        self.shares_weights = own is None
        self.dtype = torch.float32 if own is None else own.dtype  # of what is pushed to it

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, *, at_once: int, enough: int | None = None
    ) -> list[list[Generation]]:
        """One list of generations per request, in the order of its seeds. See `Sampling` for the words."""
        found: dict[int, list[Generation]] = {}
        missing = len(requests) if enough is None else enough
        weights = self.borrow if self.own is None else self.own.whole
        with (
            torch.no_grad(),
            without_cudnn(),
            one_token_attention(),
            weights() as model,
            torch.inference_mode(),  # of what is made from here on nothing may be trained; weights are whole before
            packed(model) as products,
        ):
            plain = plain_of(model, products)
            for run in self._runs(requests):
                asked = [requests[i] for i in run]
                decoding = Decoding(model, self.tokenizer, self.end_ids, asked, sampling, plain)
                made = decoding.run(at_once=at_once, refill=not self.equal_lengths, enough=missing)
                found.update(zip(run, made, strict=True))
                self.batches += decoding.batches
                missing -= sum(map(bool, made))
                if missing <= 0:
                    break
        return [found.get(index, []) for index in range(len(requests))]

    def _runs(self, requests: Sequence[Request]) -> Iterator[list[int]]:
        """The requests' indices, those that may be decoded together in one list. The longest prompts come first: the
        less padding there is, and where memory is short it is so at once."""
        lengths = [len(request.prompt_ids) for request in requests]
        ordered = sorted(range(len(requests)), key=lambda index: -lengths[index])
        for _, group in groupby(ordered, key=lambda index: lengths[index] if self.equal_lengths else 0):
            yield list(group)

    def update_weights(self, params: Iterable[tuple[str, Tensor]], version: int) -> None:
        if self.own is not None:
            self.own.fill(params)
        self.version = version

    def fingerprints(self) -> Mapping[tuple[str, ...], int] | None:
        return None if self.own is None else self.own.fingerprints()

    def sleep(self, *, keep_weights: bool) -> None:
        """Between generations it holds no memory but that of its own weights, where it has some."""
        if self.own is not None and not keep_weights:
            self.own.give_back()

    def wake(self, what: Literal["weights", "kv_cache"]) -> None:
        if self.own is not None and what == "weights":
            self.own.take()

    def restart(self) -> None:
        """There is nothing that could have died."""

    def stats(self) -> dict[str, float]:
        found, self.batches = {"decode_batches": float(self.batches)}, 0
        return found

    def close(self) -> None:
        self.sleep(keep_weights=False)
