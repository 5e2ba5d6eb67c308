"""The parity gate: whether the engine's log-probabilities of what it sampled are the trainer's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightrft.algorithms.functional import row_mean
from lightrft.batch import Batch
from lightrft.ranks.base import Ranks
from lightrft.sync.alarm import Alarm, Finding
from lightrft.sync.diagnosis import LIMITS, RETOKENISED, Diagnosis, Suspect
from lightrft.types import Rollout

OTHER_PROMPTS = (
    "in {} rows the engine has answered other prompt ids than it was sent; it must be given token ids, and add nothing "
    "to them"
)
SUSPECTS = 4  # rows of each rank that are looked at where the gap is over the limit


def limit_for(precisions: Iterable[str]) -> float:
    """The largest mean gap that rounding explains, where engine and trainer compute in these: fp32, bf16, fp16."""
    return max(LIMITS[precision] for precision in precisions)


@dataclass(frozen=True)
class Seen:
    """|trainer - engine| where `compared` is 1, both [B, T]."""

    batch: Batch
    gaps: Tensor
    compared: Tensor


class Verdict:
    """Compares the mean gap over all ranks' tokens with `limit`; where it is above, the cause is looked for and told.

    ranks: those that hold rows of their own, or everyone.
    """

    def __init__(self, ranks: Ranks, limit: float, diagnosis: Diagnosis, alarm: Alarm) -> None:
        self.ranks, self.limit, self.diagnosis, self.alarm = ranks, limit, diagnosis, alarm

    def __call__(self, seen: Sequence[Seen], step: int, *, other_prompts: int = 0, between: bool = False) -> None:
        """seen: of this rank, one at least; other_prompts: its rows whose prompts the engine has changed; between: the
        step and the next. All ranks together."""
        gaps = torch.cat([each.gaps[each.compared == 1].double() for each in seen])
        count = gaps.new_tensor([len(gaps), other_prompts])
        sums = self.ranks.reduce({"sums": torch.cat([gaps.sum()[None], count])})
        gap, tokens, others = sums["sums"].tolist()
        if others:
            self.alarm(Finding(RETOKENISED, OTHER_PROMPTS.format(int(others))), step, between=between)
        if gap > self.limit * tokens:
            head = f"the engine's log-probabilities are {gap / tokens:.2g} nats a token off the trainer's on average "
            head += f"(--max_logprob_gap {self.limit:g})"
            cause = self.diagnosis(list(worst(seen)), self.limit, seen[0].batch)
            self.alarm(cause.seen_as(head), step, between=between)


class ParityGate:
    """Judges a turn by its first optimizer step, before that is taken.

    Then the policy is still the one that sampled: nobody has learned yet from what it did not say. In later optimizer
    steps of a turn the gaps are those of log-probabilities from before, of which these rows are a sample.
    """

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self.seen: list[Seen] = []
        self.judged = 0
        self.other_prompts = 0

    def look(self, rollouts: Sequence[Rollout]) -> None:
        """This rank's, as its engine gave them."""
        sent = [(rollout.prompt.token_ids, rollout.prompt_ids) for rollout in rollouts]
        self.other_prompts = sum(ids != used for ids, used in sent if ids)

    def see(self, batch: Batch, gaps: Tensor, compared: Tensor, turn: int) -> None:
        if turn != self.judged:
            self.seen.append(Seen(batch, gaps.detach(), compared))

    def judge(self, turn: int) -> None:
        if turn == self.judged:
            return
        seen, self.seen, self.judged = self.seen, [], turn
        self.verdict(seen, turn, other_prompts=self.other_prompts)


def worst(seen: Sequence[Seen]) -> Iterator[Suspect]:
    """The rows of this rank with the largest mean gaps."""
    means = torch.cat([row_mean(each.gaps, each.compared)[:, 0] for each in seen])
    places = [(each, row) for each in seen for row in range(len(each.batch))]
    for index in means.topk(min(SUSPECTS, len(means))).indices.tolist():
        each, row = places[index]
        if bool(each.compared[row].any()):
            one = each.batch.select([row])
            width = one.input_ids.shape[1]
            yield Suspect(one, each.gaps[row : row + 1, :width], each.compared[row : row + 1, :width])
