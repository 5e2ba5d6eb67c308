"""What an estimator is: an advantage and the loss that belongs to it, declared together.

No torch is imported here or in the estimators' files (tensor methods do), so that the defaults an estimator brings
are known to `--help` and `--print_args` at once.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from lightrft.args.groups.algorithm import AlgorithmArgs
    from lightrft.types import Batch


@dataclass(frozen=True)
class Advantages:
    """advantages [B, T] float32, 0 where the mask is 0; valid [B] bool, False for samples that must not train."""

    advantages: Tensor
    valid: Tensor
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TokenLoss:
    """loss [B, T], one number per token, not yet reduced; metrics: [B, T] arrays that are averaged over tokens;
    row_metrics: [B] arrays that are averaged over rows with trained tokens."""

    loss: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
    row_metrics: Mapping[str, Tensor] = field(default_factory=dict)


class AdvantageFunction(Protocol):
    def __call__(self, batch: Batch, args: AlgorithmArgs) -> Advantages: ...


class PolicyLoss(Protocol):
    def __call__(
        self, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, response_mask: Tensor, args: AlgorithmArgs
    ) -> TokenLoss: ...


@dataclass(frozen=True)
class Estimator:
    """An advantage function, a policy loss and the way the loss is reduced.

    aggregation: the `--loss_agg_mode` used when the flag is not given.
    needs: "group" (at least two samples per prompt).
    kl: where the KL term goes when its coefficient is above 0, "loss" or "reward".
    idle_without_advantage: a row whose advantages are all 0 has no policy gradient, so it needs no forward pass.
    defaults: flags whose defaults this estimator changes.
    """

    advantage: AdvantageFunction
    policy_loss: PolicyLoss
    aggregation: str
    paper: str
    kl: str = "loss"
    idle_without_advantage: bool = True
    needs: frozenset[str] | set[str] = frozenset()
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def fill_advantages(self, batch: Batch, args: AlgorithmArgs) -> tuple[Batch, Mapping[str, float]]:
        """The batch with its advantages, invalid samples masked out of every denominator, and metrics."""
        found = self.advantage(batch, args)
        mask = batch.response_mask * found.valid[:, None]
        return batch.filled(advantages=found.advantages, response_mask=mask), found.metrics


def load_estimator(name: str) -> Estimator:
    """The `ESTIMATOR` of `estimators/<name>.py`; the file names are the flag's choices (args/estimators.py)."""
    return importlib.import_module(f"lightrft.algorithms.estimators.{name}").ESTIMATOR
