"""Where weights reach the engine, and are compared with what it then holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal

import torch

from lightrft.models.fingerprint import fingerprint
from lightrft.ranks.base import ONE_RANK, Ranks
from lightrft.ranks.together import together
from lightrft.rollouts.engines.base import InferenceEngine
from lightrft.strategy.base import Handle, Strategy
from lightrft.sync.alarm import Alarm, Finding
from lightrft.sync.stale import Held, Sent, differing, stale

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    Params = Iterable[tuple[str, Tensor]]

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
NO_FINGERPRINTS = "the engine cannot tell what weights it holds: after every sync a few tokens are compared instead"


class WeightSync:
    """Brings the policy's weights to the engine, and asks it what it has got.

    An engine that samples from the training module itself shares its weights: it only learns the version's number.
    everyone: all processes, each with an engine. alarm: what is told of a tensor that is not what was sent; with None
    nobody asks. found: what is wrong with what the engine holds, True where it is all that it was sent last, None where
    nobody knows; equal on all ranks.
    """

    def __init__(
        self,
        strategy: Strategy,
        policy: Handle,
        engine: InferenceEngine,
        everyone: Ranks = ONE_RANK,
        alarm: Alarm | None = None,
    ) -> None:
        self.strategy, self.policy, self.engine = strategy, policy, engine
        self.everyone, self.alarm = everyone, alarm
        self.started: Held | None = None  # what the engine held before it was sent anything
        self.found: Finding | Literal[True] | None = True if engine.shares_weights else None

    def push(self, version: int) -> None:
        """version: the steps of the loop that the policy has learned from."""
        if self.engine.shares_weights:
            return self.engine.update_weights((), version)
        if self.alarm is not None and self.started is None:
            self.started = self._held() or {}
        sent: dict[str, int] = {}
        with together(self.everyone):
            send(self._params() if self.alarm is None else noted(self._params(), sent), self.engine, version)
        if self.alarm is not None:
            self._compare(sent, version, self.alarm)

    def _params(self) -> Iterator[tuple[str, Tensor]]:
        return named(self.policy.model, self.strategy.full_params(self.policy), self.engine.dtype)

    def _compare(self, sent: Sent, version: int, alarm: Alarm) -> None:
        self.found, held = None, self._held()
        if held is None:
            return alarm.once(NO_FINGERPRINTS)
        most = 2 * len(differing(sent, held)) > len(held)
        others = self._in_other_precisions() if self.everyone.agree(most or None) else {}
        copies = {copy for names in tied(self.policy.model).values() for copy in names}
        found = self.everyone.agree(stale(sent, held, started=self.started or {}, copies=copies, others=others))
        self.found = found or True
        if found is not None:
            alarm(found, version, between=True)

    def _held(self) -> Held | None:
        with together(self.everyone):
            return self.engine.fingerprints()

    def _in_other_precisions(self) -> dict[str, Sent]:
        """The fingerprints of the policy's weights in those that the engine is not said to hold."""
        found: dict[str, Sent] = {}
        for name, dtype in PRECISIONS.items():
            if dtype != self.engine.dtype:
                params = named(self.policy.model, self.strategy.full_params(self.policy), dtype)
                found[name] = {tensor: fingerprint(value) for tensor, value in params}
        return found


def push(model: PreTrainedModel, params: Params, engine: InferenceEngine, version: int) -> None:
    """params: of `model`, which no strategy holds: whole, tied ones once."""
    engine.update_weights(() if engine.shares_weights else named(model, params, engine.dtype), version)


def send(params: Iterator[tuple[str, Tensor]], engine: InferenceEngine, version: int) -> None:
    """All of them are gone through, also where the engine fails: the other ranks wait for this one's part of each."""
    try:
        engine.update_weights(params, version)
    finally:
        for _ in params:
            pass


def noted(params: Params, fingerprints: dict[str, int]) -> Iterator[tuple[str, Tensor]]:
    """The same, each entered into `fingerprints` under its name when it comes by."""
    for name, value in params:
        fingerprints[name] = fingerprint(value)
        yield name, value


def named(model: PreTrainedModel, params: Params, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """params in `dtype`, tied ones under their other names too: an engine may hold a copy for each."""
    copies = tied(model)
    for name, value in params:
        value = value.to(dtype) if value.is_floating_point() else value
        yield name, value
        yield from ((copy, value) for copy in copies.get(name, ()))


def tied(model: PreTrainedModel) -> dict[str, list[str]]:
    """From the first name of a tensor that has several to the others."""
    first: dict[int, str] = {}
    others: dict[str, list[str]] = {}
    for name, value in model.named_parameters(remove_duplicate=False):
        known = first.setdefault(id(value), name)
        if known != name:
            others.setdefault(known, []).append(name)
    return others
