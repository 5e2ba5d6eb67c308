"""What an estimator is: an advantage and the loss that belongs to it, declared together.

No torch is imported here or in the estimators' files (tensor methods do), so that the defaults an estimator brings
are known to `--help` and `--print_args` at once.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from lightrft.algorithms.faults import guarded
from lightrft.algorithms.functional import masked
from lightrft.algorithms.over_ranks import mean
from lightrft.algorithms.whitening import clipped_advantages, whitened
from lightrft.args.estimators import own_estimator
from lightrft.errors import Refused
from lightrft.ranks.base import Ranks
from lightrft.user_code.module import own_module

if TYPE_CHECKING:
    from torch import Tensor

    from lightrft.args.groups.algorithm import AlgorithmArgs
    from lightrft.batch import Batch


@dataclass(frozen=True)
class AdvantageSettings:
    """What advantages depend on besides the batch.

    kl_coef: of the KL in the reward, 0 where it has no place there. whiten: zero mean and unit variance over the
    rollout step's trained tokens. clip: the largest size afterwards, 0 = none.
    """

    kl_coef: float = 0.0
    kl_kind: str = "k1"
    gamma: float = 1.0
    lambd: float = 1.0
    whiten: bool = False
    clip: float = 0.0


@dataclass(frozen=True)
class Advantages:
    """advantages [B, T] float64, 0 where the mask is 0; valid [B] bool, False for samples that must not train.

    returns [B, T] float64: what a critic learns, where there is one. Both are rounded to float32 last, after whitening.
    """

    advantages: Tensor
    valid: Tensor
    metrics: Mapping[str, float] = field(default_factory=dict)
    returns: Tensor | None = None


@dataclass(frozen=True)
class TokenLoss:
    """loss [B, T], one number per token, not yet reduced; metrics: [B, T] arrays that are averaged over tokens;
    row_metrics: [B] arrays that are averaged over rows with trained tokens."""

    loss: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
    row_metrics: Mapping[str, Tensor] = field(default_factory=dict)


class AdvantageFunction(Protocol):
    def __call__(self, batch: Batch, settings: AdvantageSettings, ranks: Ranks) -> Advantages: ...


class PolicyLoss(Protocol):
    def __call__(
        self, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, response_mask: Tensor, args: AlgorithmArgs
    ) -> TokenLoss: ...


class Drift(Protocol):
    def __call__(self, logprobs: Tensor, old_logprobs: Tensor, mask: Tensor, args: AlgorithmArgs) -> TokenLoss: ...


@dataclass(frozen=True)
class Estimator:
    """An advantage function, a policy loss and the way the loss is reduced.

    aggregation: the `--loss_agg_mode` used when the flag is not given.
    per_row: the loss has one ratio per response, so its aggregation is fixed and importance weights are per row.
    judges: what the loss and the drift of a token, and so their slopes, follow from: that "token"'s numbers alone, its
    "row"'s, or for all that is known the whole "batch"'s. A fused head finds gradients sooner by tokens and rows, for
    which both are called several times, on tokens and rows that are not known yet too.
    drift: a further term that holds the policy near the old one; its coefficient is the KL coefficient.
    needs: "group" (at least two samples per prompt), "critic".
    kl: where the KL to the reference goes when its coefficient is above 0: "loss", "reward", or "off".
    whitening: of advantages: "part" of the estimator, "optional", or "never" since they are normalised already.
    idle_without_advantage: the policy loss has no gradient in a row whose advantages are all 0. Such a row gets no
    forward pass, where no drift, no critic, no KL and no entropy bonus learns from it either.
    defaults: flags whose defaults this estimator changes. ignores: flags that can do nothing for it.
    """

    advantage: AdvantageFunction
    policy_loss: PolicyLoss
    aggregation: str
    paper: str = ""
    kl: str = "loss"
    whitening: str = "never"
    per_row: bool = False
    judges: str = "batch"
    drift: Drift | None = None
    idle_without_advantage: bool = True
    needs: frozenset[str] | set[str] = frozenset()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    ignores: frozenset[str] | set[str] = frozenset()

    def fill_advantages(
        self, batch: Batch, settings: AdvantageSettings, ranks: Ranks
    ) -> tuple[Batch, Mapping[str, float]]:
        """The batch with its advantages (float32), invalid samples masked out of every denominator, and metrics.

        batch: this rank's rows of the rollout step; groups and whitening are over the rows of all ranks. A row with
        an advantage or return that float32 cannot hold is masked out as well: one such number would be in every loss.
        """
        found = self.advantage(batch, settings, ranks)
        mask = batch.response_mask * found.valid[:, None]
        finite = finite_rows(found.advantages, mask) & finite_rows(found.returns, mask)
        metrics = {**found.metrics, "policy/nonfinite_frac": mean((~finite).double(), ranks)}
        mask = mask * finite[:, None]
        advantages = masked(found.advantages, mask)
        if settings.whiten:
            advantages = whitened(advantages, mask, ranks)
        if settings.clip > 0:
            advantages, outside = clipped_advantages(advantages, mask, settings.clip, ranks)
            metrics["policy/advantage_clip_frac"] = outside
        filled = {"advantages": advantages.float(), "response_mask": mask}
        if found.returns is not None:
            filled["returns"] = masked(found.returns, mask).float()
        return batch.filled(**filled), metrics


RETURNS: dict[str, type] = {"advantage": Advantages, "policy_loss": TokenLoss, "drift": TokenLoss}


def finite_rows(values: Tensor | None, mask: Tensor) -> Tensor:
    """[B] bool: whether float32 can hold all of a row's values [B, T] where the mask is 1. No values are fine."""
    if values is None:
        return mask.new_ones(len(mask)).bool()
    return masked(values, mask).float().isfinite().all(-1)


def load_estimator(name: str) -> Estimator:
    """The `ESTIMATOR` of `estimators/<name>.py`, or of a file of the user's own (args/estimators.py); else Refused."""
    if own_estimator(name) is None:
        return importlib.import_module(f"lightrft.algorithms.estimators.{name}").ESTIMATOR
    label = f"--advantage_estimator {name}"
    module = own_module(name, label)
    found = getattr(module, "ESTIMATOR", None)
    if not isinstance(found, Estimator):
        raise Refused(f"{label}: its ESTIMATOR is {type(found).__name__}, not lightrft.algorithms.estimator.Estimator")
    functions = {name: (getattr(found, name), kind) for name, kind in RETURNS.items()}
    ours = {
        name: guarded(module, f"{label}: {name}", f, kind) for name, (f, kind) in functions.items() if f is not None
    }
    return replace(found, **ours)
