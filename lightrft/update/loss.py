"""The terms of the actor's loss, per token and not yet reduced (algorithms S11):

    weight * selected * policy  +  kl coefficient * kl  +  drift coefficient * drift  -  entropy coefficient * entropy

All of them are reduced by one aggregation over one set of denominators, those of the whole response mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from lightrft.algorithms.entropy_mask import entropy_threshold, high_entropy_mask
from lightrft.algorithms.estimator import Estimator
from lightrft.algorithms.functional import distance, kl_penalty, log_ratio
from lightrft.algorithms.importance import importance_weights, row_weights
from lightrft.batch import Batch
from lightrft.models.token_model import Scores
from lightrft.ranks.base import Ranks
from lightrft.update.kl import KLTerm

if TYPE_CHECKING:
    from lightrft.args.groups.algorithm import AlgorithmArgs


@dataclass
class Terms:
    """weighted: name -> (coefficient, [B, T]); token_metrics [B, T]; row_metrics [B]; mismatch [B, T], of engine and
    trainer, on the tokens that are `compared` [B, T]."""

    weighted: dict[str, tuple[float, Tensor]]
    token_metrics: dict[str, Tensor]
    row_metrics: dict[str, Tensor]
    mismatch: dict[str, Tensor]
    compared: Tensor


class LossTerms:
    """The terms for one micro-batch. Per-token numbers only: what a micro-batch is cannot matter here.

    fire: first tokens were drawn hot, so what the engine says of them is not compared (algorithms S12).
    """

    def __init__(self, estimator: Estimator, kl: KLTerm, algorithm: AlgorithmArgs, *, fire: bool = False) -> None:
        self.estimator, self.kl, self.algorithm, self.fire = estimator, kl, algorithm, fire

    @property
    def entropy(self) -> str:
        """What the forward pass has to find: an entropy to watch, or one to train on."""
        return "gradient" if self.algorithm.entropy_coef > 0 else "value"

    @property
    def skips_rows_without_advantage(self) -> bool:
        """Whether a row whose advantages are all 0 has no gradient at all, of the policy or a critic."""
        e = self.estimator
        other = self.kl.in_loss > 0 or self.algorithm.entropy_coef > 0 or e.drift is not None or "critic" in e.needs
        return e.idle_without_advantage and not other

    def judges(self, batch: Batch) -> str:
        """Whose scores the slope of the loss to a token's scores follows from: that "token"'s, its "row"'s, which an
        importance weight of a whole row makes of it unless it was known before, or the whole "batch"'s."""
        of_rows = self.algorithm.is_correction in ("sequence_truncate", "sequence_mask", "geometric")
        found = self.estimator.judges
        return "row" if found == "token" and of_rows and not batch.has("old_logprobs") else found

    def select_tokens(self, batch: Batch, rows: Sequence[int], ranks: Ranks) -> Batch:
        """With `selected`, the tokens of high entropy, where only these are trained.

        rows: those of the batch that the optimizer step learns from. The threshold is over its tokens on all ranks.
        """
        ratio = self.algorithm.high_entropy_token_ratio
        if not 0 < ratio < 1:
            return batch
        entropy, mask = batch.entropy, batch.response_mask
        everywhere = ranks.concatenate(entropy[rows][mask[rows] == 1])
        return batch.filled(selected=high_entropy_mask(entropy, mask, entropy_threshold(everywhere, ratio)))

    def __call__(self, batch: Batch, scores: Scores) -> Terms:
        mask, args = batch.response_mask, self.algorithm
        old = batch.old_logprobs if batch.has("old_logprobs") else scores.logprobs.detach()
        policy = self.estimator.policy_loss(scores.logprobs, old, batch.advantages, mask, args)
        compared = self._compared(batch)
        rollout = batch.rollout_logprobs.where(compared == 1, old)  # elsewhere the weight is 1
        weights, changed = self._weights(old, rollout, mask)
        metrics = {**policy.metrics, "mismatch/nonfinite_frac": 1.0 - batch.rollout_logprobs.isfinite().to(old.dtype)}
        chosen = mask
        if batch.has("selected"):
            chosen = metrics["policy/high_entropy_frac"] = batch.selected
        weighted = {"loss/policy": (1.0, weights * chosen * policy.loss)}
        mismatch = {**_mismatch(old, rollout, mask, weights), "mismatch/clip_frac": changed}
        terms = Terms(weighted, metrics, dict(policy.row_metrics), mismatch, compared)
        self._add_kl(terms, batch, scores, old)
        self._add_entropy(terms, scores)
        return terms

    def _compared(self, batch: Batch) -> Tensor:
        """[B, T]: 1 on the trained tokens that engine and trainer judge by one distribution, both with a number."""
        judged = batch.response_mask * batch.rollout_logprobs.isfinite()
        return judged * ~batch.first_tokens if self.fire else judged

    def _weights(self, old: Tensor, rollout: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Importance weights, and 1 where they are not what they would be without bounds, both [B, T]."""
        a, weigh = self.algorithm, row_weights if self.estimator.per_row else importance_weights
        given = (old, rollout, mask, a.is_correction)
        weights = weigh(*given, a.is_low, a.is_cap)
        return weights, (weights != weigh(*given, None, float("inf"))).to(weights.dtype)

    def _add_kl(self, terms: Terms, batch: Batch, scores: Scores, old: Tensor) -> None:
        mask = batch.response_mask
        if self.kl.in_loss > 0:
            kl = kl_penalty(scores.logprobs, batch.ref_logprobs, mask, self.algorithm.kl_estimator)
            terms.weighted["loss/kl"] = (self.kl.in_loss, kl)
            terms.token_metrics["kl/ref"] = kl
        elif batch.has("ref_logprobs"):
            terms.token_metrics["kl/ref"] = kl_penalty(old, batch.ref_logprobs, mask, self.algorithm.kl_estimator)
        if self.estimator.drift is not None and self.kl.at("drift") > 0:
            drift = self.estimator.drift(scores.logprobs, old, mask, self.algorithm)
            terms.weighted["loss/drift"] = (self.kl.at("drift"), drift.loss)
            terms.token_metrics |= {**drift.metrics, "kl/drift": distance(log_ratio(scores.logprobs, old, mask))}

    def _add_entropy(self, terms: Terms, scores: Scores) -> None:
        assert scores.entropy is not None
        terms.token_metrics["policy/entropy"] = scores.entropy
        if self.algorithm.entropy_coef > 0:
            terms.weighted["loss/entropy"] = (-self.algorithm.entropy_coef, scores.entropy)


def _mismatch(old: Tensor, rollout: Tensor, mask: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """How far engine and trainer are apart on the sampled tokens, and what is done about it."""
    w = log_ratio(old, rollout, mask)
    return {
        "mismatch/gap_mean": w.abs(),
        "mismatch/kl": distance(w),
        "mismatch/weight_mean": weights,
        "mismatch/weight_square": weights.square(),
    }
