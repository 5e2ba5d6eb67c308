"""Whether a run learns at all: what keeps it from learning is said at once, and ends it where it does not pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from lightrft.algorithms.functional import masked
from lightrft.batch import Batch
from lightrft.errors import RunFailed
from lightrft.groups import varied_groups
from lightrft.ranks.base import Ranks
from lightrft.step_index import StepIndex
from lightrft.strategy.base import StepReport
from lightrft.update.metrics import MetricSums

MOST_SKIPPED = 10  # optimizer steps of one model in a row
LONG = 10  # steps in a row with nothing to learn from: said again

# Shares that should be 0, and what it means that one is not.
FAULTS = {
    "policy/nonfinite_frac": "of the responses have an advantage that is no number in float32, and do not train: a "
    "reward, a KL term or a value has blown up",
    "mismatch/nonfinite_frac": "of the sampled tokens have no finite log-probability from the engine: they are not "
    "compared with the trainer's, and have an importance weight of 1",
}
SKIPPED = {"update/skipped_steps": "policy", "critic/skipped_steps": "critic"}


# What an advantage is made of beside the reward, and what may have made it blow up.
INGREDIENTS = {
    "values": "the critic's values are not finite; lower --critic_learning_rate, look for NaN in --critic_pretrain",
    "old_logprobs": "the policy's log-probabilities are not finite; lower --actor_learning_rate",
    "ref_logprobs": "the reference's log-probabilities are not finite; use another --pretrain or precision",
}


def none_finite(batch: Batch, ranks: Ranks, step: int) -> RunFailed:
    """What is wrong where not one response of a step has an advantage that float32 can hold: every rank asks."""
    here = [
        name
        for name in INGREDIENTS
        if batch.has(name) and not bool(masked(getattr(batch, name), batch.response_mask).isfinite().all())
    ]
    everywhere = set(ranks.gather(here))
    cause = next(
        (text for name, text in INGREDIENTS.items() if name in everywhere), "all rewards are too large; scale them"
    )
    return RunFailed(f"step {step}: no response has a finite advantage: {cause}, or go on from an older checkpoint")


@dataclass
class Skips:
    """Optimizer steps of one model that were skipped in a row. A resumed run counts from 0.

    fp16: a skip by which the loss scaling looks for its scale does not count; it starts at 2^16, so that is up to 16
    of them. A step with nothing to learn from is no skip, and ends no row.
    """

    model: str
    flag: str
    count: int = 0
    first: int = 0

    def note(self, report: StepReport, step: int, sums: MetricSums, ranks: Ranks) -> RunFailed | None:
        """Why the run ends, at the tenth; all ranks skip together, so all of them are told."""
        if not report.skipped:
            self.count = 0
        elif not report.scaling:
            self.first = self.first if self.count else step
            self.count += 1
        if self.count != MOST_SKIPPED:
            return None
        return RunFailed(
            f"step {step}: {self.count} optimizer steps of the {self.model} in a row were skipped, from step "
            f"{self.first} on: {self._cause(sums.not_finite(ranks))}; lower {self.flag}, look for extreme "
            "rewards, or go on from an older checkpoint"
        )

    def _cause(self, broken: set[str]) -> str:
        losses = sorted(name for name in broken if name.startswith("loss/") or name == "critic/loss")
        if "policy/entropy" in broken and self.model == "policy":
            return "the policy's log-probabilities are not finite"
        if losses:
            return f"{' and '.join(losses)} {'is' if len(losses) == 1 else 'are'} not finite"
        return "every term of the loss is finite, and the gradient is not"


@dataclass
class Health:
    """What was there to learn from, step by step.

    by_prompt: rewards count where they differ among the samples of one prompt, else where they differ in the step.
    steps, varied: steps so far, and those with something to learn from; row: steps since the last of them.
    reward: the last step's lowest, and with one_reward every one of the run.
    differed, trained: of the last step, whether some rewards did, and whether a response had a token to train on.
    """

    by_prompt: bool
    steps: int = 0
    varied: int = 0
    row: int = 0
    reward: float | None = None
    one_reward: bool = True
    differed: bool = False
    trained: bool = True
    told: list[str] = field(default_factory=list)

    def see(self, index: StepIndex) -> None:
        """A rollout step with its shaped rewards, and with what trains of it."""
        valid = np.isfinite(index.rewards)
        rewards, trained = set(index.rewards[valid].tolist()), valid & (index.trained > 0)
        group = (index.group if self.by_prompt else np.zeros_like(index.group)).tolist()
        varied = varied_groups(group, index.rewards.tolist())
        learns = any(group[row] in varied for row in np.flatnonzero(trained))
        self.one_reward &= len(rewards) == 1 and self.reward in (None, *rewards)
        self.reward = min(rewards, default=self.reward)
        self.differed, self.trained = bool(varied), bool(trained.any())
        self.steps, self.varied = self.steps + 1, self.varied + learns
        self.row = 0 if learns else self.row + 1

    def remarks(self, metrics: Mapping[str, float], step: int) -> Iterator[str]:
        """Lines about the step that was seen last: each fault once a run, too little to learn from once a row."""
        for name, text in FAULTS.items():
            if metrics.get(name, 0.0) > 0 and name not in self.told:
                self.told.append(name)
                yield f"warning: step {step}: {metrics[name]:.2%} {text} ({name}; said once)"
        for name, model in SKIPPED.items():
            if metrics.get(name, 0.0) > 0 and name not in self.told:
                self.told.append(name)
                what = f"optimizer steps of the {model} were skipped, since its gradient was not finite"
                yield f"warning: step {step}: {metrics[name]:g} {what} ({name}; said once)"
        if self.row == self.steps == 1:
            yield f"warning: step {step} has nothing to learn from: {self._reason()}"
        elif self.row == LONG:
            yield f"warning: the last {LONG} steps had nothing to learn from: {self._reason()}"

    def verdict(self) -> Iterator[str]:
        """A line at the end of a run whose rewards have taught nothing, or nothing any more."""
        if self.steps and not self.varied:
            steps = f"{self.steps} step{'s' * (self.steps != 1)}"
            yield f"warning: nothing was learned from the reward in {steps}: {self._reason()}"
        elif self.row >= LONG:
            yield f"warning: the last {self.row} steps had nothing to learn from: {self._reason()}"

    def _reason(self) -> str:
        if self.one_reward:
            return f"every reward was {self.reward:g}; mend --reward_fn, or take easier or harder prompts"
        if not self.differed:
            what = "the rewards of a prompt's samples" if self.by_prompt else "the rewards of a step"
            return f"{what} were all equal; raise --n_samples_per_prompt or --temperature, or take other prompts"
        return "no response had a token to train on; raise --max_new_tokens, or leave out what masks them"

    def state(self) -> dict[str, Any]:
        return asdict(self)

    def load_state(self, state: Mapping[str, Any]) -> None:
        """What was seen before, and nothing else; `by_prompt` is for the flags of this run to say."""
        for name in {each.name for each in fields(self)} & state.keys() - {"by_prompt"}:
            setattr(self, name, state[name])
