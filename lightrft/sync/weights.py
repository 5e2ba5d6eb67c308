"""Where weights reach the engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from lightrft.rollouts.engines.base import InferenceEngine
from lightrft.strategy.base import Handle, Strategy

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


class WeightSync:
    """Brings the policy's weights to the engine.

    An engine that samples from the training module itself shares its weights: it only learns the version's number.
    """

    def __init__(self, strategy: Strategy, policy: Handle, engine: InferenceEngine) -> None:
        self.strategy, self.policy, self.engine = strategy, policy, engine

    def push(self, version: int) -> None:
        """version: the steps of the loop that the policy has learned from."""
        push(self.policy.model, self.strategy.full_params(self.policy), self.engine, version)


def push(model: PreTrainedModel, params: Iterable[tuple[str, Tensor]], engine: InferenceEngine, version: int) -> None:
    """params: of `model`, whole, tied ones once."""
    named = () if engine.shares_weights else all_names(params, model)
    engine.update_weights(((name, value.to(engine.dtype)) for name, value in named), version)


def all_names(params: Iterable[tuple[str, Tensor]], model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """params, and each tied tensor under its other names too: an engine may hold a copy for each."""
    others = _tied(model)
    for name, value in params:
        yield name, value
        yield from ((other, value) for other in others.get(name, ()))


def _tied(model: PreTrainedModel) -> dict[str, list[str]]:
    """From the first name of a tensor that has several to the others."""
    first: dict[int, str] = {}
    others: dict[str, list[str]] = {}
    for name, value in model.named_parameters(remove_duplicate=False):
        known = first.setdefault(id(value), name)
        if known != name:
            others.setdefault(known, []).append(name)
    return others
