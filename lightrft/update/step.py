"""One optimizer step: the loss of each micro-batch against global denominators, then backward, clip, update."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from lightrft.algorithms.estimator import Estimator
from lightrft.algorithms.functional import Counts, aggregate
from lightrft.batch import Batch
from lightrft.errors import RunFailed
from lightrft.models.token_model import KnownLoss, TokenModel
from lightrft.ranks.pulse import PULSE
from lightrft.strategy.base import Handle, Strategy
from lightrft.update.base import Watch
from lightrft.update.counts import own_group_tokens, step_counts
from lightrft.update.critic import Critic
from lightrft.update.ema import MovingAverage
from lightrft.update.health import Skips
from lightrft.update.kl import KLTerm
from lightrft.update.loss import LossTerms, Terms
from lightrft.update.metrics import MetricSums, UpdateReport
from lightrft.update.partition import MicroBatchSize, Part, cut, draw_parts, rows_that_move

if TYPE_CHECKING:
    from lightrft.args.groups.algorithm import AlgorithmArgs
    from lightrft.args.groups.batch import BatchArgs


@dataclass(frozen=True)
class UpdateSettings:
    """The flags that the update reads, and what follows from them.

    frozen_steps: turns of the loop at the start in which the critic learns alone. fire: first tokens are drawn hot.
    apart: the engine has weights of its own, so more is told of how far it is off.
    """

    algorithm: AlgorithmArgs
    batch: BatchArgs
    aggregation: str
    max_epochs: int
    max_new_tokens: int
    seed: int
    frozen_steps: int = 0
    fire: bool = False
    apart: bool = False


class Updater:
    """Turns a batch with advantages into optimizer steps on `policy`, each with one on `critic` where there is one.

    average: of the policy's weights, is updated after each step that was taken. watch: is shown how far engine and
    trainer are apart."""

    def __init__(
        self,
        strategy: Strategy,
        policy: TokenModel,
        estimator: Estimator,
        kl: KLTerm,
        settings: UpdateSettings,
        critic: Critic | None = None,
        average: MovingAverage | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.strategy, self.policy, self.estimator, self.settings = strategy, policy, estimator, settings
        self.critic, self.average, self.watch = critic, average, watch
        self.loss = LossTerms(estimator, kl, settings.algorithm, fire=settings.fire)
        self.sums = MetricSums()
        self.skips = {
            "policy": Skips("policy", "--actor_learning_rate"),
            "critic": Skips("critic", "--critic_learning_rate"),
        }
        self.changed = False  # whether a model may have changed since the trainer set it to False
        self.failure: RunFailed | None = None  # why the run ends at the next step boundary

    def partition(self, batch: Batch, turn: int) -> Iterator[Part]:
        """Of the rows of all ranks, equal on each of them."""
        s, alone = self.settings, turn <= self.settings.frozen_steps
        size = s.batch.train_batch_size
        return draw_parts(len(batch.index), size, s.max_epochs, seed=s.seed, turn=turn, critic_alone=alone)

    def step(self, batch: Batch, part: Part) -> None:
        """Gradient of the loss over `part`, whatever the micro-batches and the ranks, then one update.

        batch: this rank's rows of the rollout step, maybe none of the part's; all ranks take part in every step. The
        tenth skipped update in a row is a failure, which waits for `end_if_failed`. A part without a trained token
        counts as neither taken nor skipped.
        """
        counts = step_counts(batch.index, part.rows, self.settings.max_new_tokens)
        self.sums.restart("kl/drift")  # it is the last step's alone
        self.sums.count("update/optimizer_steps", 1.0)
        self.sums.count("update/idle_steps", float(counts.tokens == 0))
        self.sums.count("update/skipped_steps", 0.0)
        if counts.tokens == 0:
            return
        micro_batches = self._micro_batches(batch, part.rows)
        if not part.critic_alone:
            self._learn(micro_batches, counts, part.turn)
        if self.critic is not None:
            self.critic.backward(micro_batches, self.settings.aggregation, counts, self.sums)
            self._take_step("critic", self.critic.model.handle, part.turn)

    def _micro_batches(self, batch: Batch, rows: Sequence[int]) -> list[Batch]:
        """Of this rank's rows among `rows`; equally many on all ranks."""
        index = batch.index
        run = rows_that_move(index, rows) if self.loss.skips_rows_without_advantage else rows
        if self.loss.skips_rows_without_advantage:
            self.sums.count("update/idle_rows", float(sum(not index.moves[row] for row in rows)))
        batch = batch.filled(group_tokens=batch.rewards.new_tensor(own_group_tokens(index, rows)))
        batch = self.loss.select_tokens(batch, index.batch_rows(rows), self.strategy.ranks)
        b, policy = self.settings.batch, self.policy
        size = MicroBatchSize(
            b.micro_train_batch_size, b.max_tokens_per_micro_batch, policy.shares_prompts, policy.packs
        )
        cuts = cut(index, run, size)
        return [batch.select(index.batch_rows(rows)) if rows else batch.dummy_row() for rows in cuts]

    def _learn(self, micro_batches: Sequence[Batch], counts: Counts, turn: int) -> None:
        for number, batch in enumerate(micro_batches):
            PULSE.part(f"policy, micro-batch {number + 1} of {len(micro_batches)}")
            loss = self._loss(batch, counts, turn)
            self.strategy.backward(self.policy.handle, loss, last=number == len(micro_batches) - 1)
        self.sums.count("perf/train_micro_batches", len(micro_batches))
        if self.watch is not None:
            self.watch.judge(turn)
        taken = self._take_step("policy", self.policy.handle, turn)
        if self.average is not None and taken:
            self.average.update()

    def _take_step(self, model: str, handle: Handle, turn: int) -> bool:
        """Whether it was taken: all ranks skip together."""
        PULSE.part(f"{model}, optimizer step")
        before, self.changed = self.changed, True  # and so it stays where the step raises
        report = self.strategy.step(handle)
        self.changed = before or not report.skipped
        self.sums.stepped(model, report)
        failure = self.skips[model].note(report, turn, self.sums, self.strategy.ranks)
        self.failure = self.failure or failure
        return not report.skipped

    def end_if_failed(self) -> None:
        """Called at a step boundary, where what another model has learned in the same turn can be saved."""
        if self.failure is not None:
            raise self.failure

    def report(self) -> UpdateReport:
        """The metrics since the last call."""
        sums, self.sums = self.sums, MetricSums()
        found = sums.finish(self.strategy.ranks)
        square = found.metrics.pop("mismatch/weight_square", 0.0)
        if square:
            found.metrics["mismatch/ess"] = found.metrics["mismatch/weight_mean"] ** 2 / square
        return found

    def _loss(self, batch: Batch, counts: Counts, turn: int) -> Tensor:
        """Scalar share of the step's loss; sums over micro-batches and ranks to it."""
        scores = self.policy.logprobs(batch, entropy=self.loss.entropy, loss=self._known(batch, counts))
        self.sums.count("perf/train_tokens", scores.tokens)
        self.sums.most("perf/largest_logits_mib", scores.logits * scores.logprobs.element_size() / 2**20)
        terms = self.loss(batch, scores)
        total, parts = self._share(terms, batch, counts)
        for name, part in parts.items():
            self.sums.add(name, part)
        self._measure(terms, batch.response_mask)
        if self.watch is not None:
            self.watch.see(batch, terms.mismatch["mismatch/gap_mean"], terms.compared, turn)
        return total

    def _known(self, batch: Batch, counts: Counts) -> KnownLoss | None:
        judges = self.loss.judges(batch)
        if judges == "batch":
            return None
        return KnownLoss(lambda scores: self._share(self.loss(batch, scores), batch, counts)[0], judges == "row")

    def _share(self, terms: Terms, batch: Batch, counts: Counts) -> tuple[Tensor, dict[str, Tensor]]:
        """The micro-batch's share of the step's loss, and of each of its terms."""
        mode, given = self.settings.aggregation, (counts, batch.group_tokens)
        parts = {
            name: coefficient * aggregate(tokens, batch.response_mask, mode, *given)
            for name, (coefficient, tokens) in terms.weighted.items()
        }
        return sum(parts.values(), batch.advantages.new_zeros(())), parts

    def _measure(self, terms: Terms, mask: Tensor) -> None:
        for name, values in terms.token_metrics.items():
            self.sums.mean(name, values, mask)
        for name, values in terms.row_metrics.items():
            self.sums.mean(name, values, mask.any(-1))
        for name, values in terms.mismatch.items():
            self.sums.mean(name, values, terms.compared)
        if self.settings.apart:
            self.sums.p99("mismatch/gap_p99", terms.mismatch["mismatch/gap_mean"], terms.compared)
        self.sums.largest("mismatch/gap_max", terms.mismatch["mismatch/gap_mean"].max())
