"""Why the engine's log-probabilities are not the trainer's: what would make them equal is looked for.

A hypothesis says what the engine's numbers would be of the trainer's own logits. The one that leaves least of the gap
is the cause, where it leaves little; else the pattern of the gap and its size are looked at; else it is the weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from lightrft.batch import Batch
from lightrft.models.rounded import rounded
from lightrft.models.token_model import TokenModel
from lightrft.ranks.base import Ranks
from lightrft.rollouts.engines.base import Sampling
from lightrft.sync.alarm import Finding
from lightrft.sync.texts import Texts, was_encoded_again

Hypothesis = Callable[[Tensor, Tensor], Tensor]  # logits [N, V], tokens [N] -> the engine's log-probabilities [N]
Keep = Callable[[Tensor, Tensor, Sampling], Tensor]  # weights [N, V], their sums [N] -> 0 where a filter is

TOKENS = 64  # of a row, whose logits are looked at
# Nats a token on average, by the coarser of the two precisions; what rounding makes is in docs/engines.md.
LIMITS = {"fp32": 1e-3, "fp16": 0.03, "bf16": 0.1}
SAME_TEMPERATURE = 0.05  # relative: nobody sets one that is nearer, and rounding looks like one
EXPLAINS = 0.1  # a hypothesis that leaves at most this share of the gap may be its cause
TEMPERATURES = 41  # tried over a factor of 10 up and down, and then between the neighbours of the best
LIKE_NOISE = 3.0  # times what rounding to bf16 does to the trainer's own numbers is precision; few tokens scatter more
ROUNDINGS = 1.0, 1.2, 1.45, 1.7  # scales of the numbers that are rounded
RETOKENISED = "re-tokenised text"
OTHER_ENGINE = "use a tested version of the engine, or --engine_type local"


@dataclass(frozen=True)
class Suspect:
    """A row, and where it differs: gaps and `compared`, both [1, T]."""

    batch: Batch
    gaps: Tensor
    compared: Tensor


@dataclass(frozen=True)
class Cause:
    """left: nats a token of the gap that it does not explain."""

    name: str
    what: str
    remedy: str
    left: float = 0.0

    def seen_as(self, head: str) -> Finding:
        return Finding(self.name, f"{head}: {self.what}; {self.remedy}")


class Diagnosis:
    """policy: the trainer's, whose forward passes are made by all ranks together. sampling: what the engine was asked
    for; keep: what filters leave. weights: what fingerprints have shown after the last sync: what is wrong with the
    engine's, True where they are the trainer's, None where nobody knows. exact: engine and trainer are said to compute
    in fp32."""

    def __init__(
        self,
        policy: TokenModel,
        ranks: Ranks,
        sampling: Sampling,
        keep: Keep,
        texts: Texts,
        weights: Callable[[], Finding | Literal[True] | None],
        *,
        exact: bool,
    ) -> None:
        self.policy, self.ranks, self.sampling, self.keep, self.texts = policy, ranks, sampling, keep, texts
        self.weights, self.exact = weights, exact

    @torch.no_grad()
    def __call__(self, suspects: Sequence[Suspect], limit: float, blank: Batch) -> Cause:
        """suspects: this rank's, maybe none, of which some rank has one. limit: of the mean gap. blank: any batch."""
        if isinstance(known := self.weights(), Finding):
            return Cause(known.cause, "its weights are not the trainer's", known.text)
        rows = self._rows(suspects, blank)
        gap, noise = self._left(rows, [at(blank.temperature)])[0], self._noise(rows)
        enough = max(EXPLAINS * gap, 0.0 if self.exact else min(gap / 2, 2 * noise))
        best = min(self._hypotheses(rows), key=lambda cause: cause.left)
        if best.left <= enough:
            return best
        return self._pattern(suspects, limit) or self._size(rows, gap, noise) or self._weights()

    def _rows(self, suspects: Sequence[Suspect], blank: Batch) -> list[Batch]:
        """As many on all ranks, with a mask on some of the tokens that are compared."""
        most = max(self.ranks.gather([len(suspects)]))
        rows = [each.batch.filled(response_mask=spread(each.compared, TOKENS)) for each in suspects]
        return [*rows, *[blank.dummy_row()] * (most - len(rows))]

    def _left(self, rows: Sequence[Batch], hypotheses: Sequence[Hypothesis]) -> list[float]:
        """Mean |engine - hypothesis| over all ranks' tokens, for each hypothesis."""

        def measure(logits: Tensor, tokens: Tensor) -> list[Tensor]:
            return [hypothesis(logits, tokens) for hypothesis in hypotheses]

        off = torch.zeros(len(hypotheses) + 1, dtype=torch.float64, device=rows[0].input_ids.device)
        for row in rows:
            found = (self.policy.measured(row, measure) - row.rollout_logprobs).abs().double()
            off[:-1] += found.where(row.response_mask == 1, 0.0).sum((-1, -2))
            off[-1] += row.response_mask.sum()
        *sums, tokens = self.ranks.reduce({"off": off})["off"].tolist()
        return [each / max(tokens, 1.0) for each in sums]

    def _noise(self, rows: Sequence[Batch]) -> float:
        """Mean change of the trainer's log-probabilities when its layers round to bf16: by several roundings, since of
        few tokens one may hardly change them."""
        own = at(rows[0].temperature)
        exact = [self.policy.measured(row, lambda logits, tokens: [own(logits, tokens)])[0] for row in rows]
        known = [row.filled(rollout_logprobs=each) for row, each in zip(rows, exact, strict=True)]
        changes = []
        for scale in ROUNDINGS:
            with rounded(self.policy.handle.model, torch.bfloat16, scale):
                changes.append(self._left(known, [own])[0])
        return sum(changes) / len(changes)

    def _hypotheses(self, rows: Sequence[Batch]) -> Iterator[Cause]:
        yield self._temperature(rows)
        yield self._filters(rows)
        yield from self._prompts(rows)

    def _temperature(self, rows: Sequence[Batch]) -> Cause:
        own, tried, left = rows[0].temperature, torch.logspace(-1, 1, TEMPERATURES).tolist(), [0.0]
        for _ in range(2):
            left = self._left(rows, [at(own * factor) for factor in tried])
            place = left.index(min(left))
            best, ends = tried[place], (tried[max(place - 1, 0)], tried[min(place + 1, len(tried) - 1)])
            tried = torch.linspace(*ends, TEMPERATURES).tolist()
        if abs(best - 1) < SAME_TEMPERATURE:
            left = [math.inf]
        what = f"they fit temperature {own * best:.2g} (all but {min(left):.2g}), and the trainer's is {own:g}"
        remedy = "the engine must sample at --temperature, and report log-probabilities of what it samples from"
        return Cause("temperature", what, remedy, min(left))

    def _filters(self, rows: Sequence[Batch]) -> Cause:
        """Those of the flags; where these are off, what a model's own generation settings often have."""
        if self.sampling.returns_mask:
            return self._no_filters(rows)
        s = replace(self.sampling, temperature=rows[0].temperature)
        often = [replace(s, top_p=p) for p in (0.8, 0.9, 0.95)] + [replace(s, top_k=k) for k in (20, 50)]
        asked = [s] if s.filtered else often
        left = self._left(rows, [after_filters(each, self.keep) for each in asked])
        chosen = asked[left.index(min(left))]
        what = f"they are of the distribution that {_flags(chosen)} leaves (all but {min(left):.2g})"
        remedy = "the engine must report log-probabilities from before its filters"
        return Cause("filters", what, remedy, min(left))

    def _no_filters(self, rows: Sequence[Batch]) -> Cause:
        """Where the trainer's numbers are of what the filters leave."""
        whole = [row.filled(sampling_masks=None) for row in rows]
        left = self._left(whole, [at(rows[0].temperature)])[0]
        what = f"they are of the distribution before {_flags(self.sampling)} (all but {left:.2g})"
        remedy = "with --replay_sampling_mask the engine must report log-probabilities of what these leave"
        return Cause("filters", what, remedy, left)

    def _prompts(self, rows: Sequence[Batch]) -> Iterator[Cause]:
        """Whether the engine has read other tokens than those of the prompts."""
        for name, encode in self.texts.ways():
            others = [self.texts.with_prompt(row, encode) for row in rows]
            changed = any(other is not row for other, row in zip(others, rows, strict=True))
            if self.ranks.agree(changed or None):
                left = self._left(others, [at(rows[0].temperature)])[0]
                what = f"they fit prompts that are {name} (all but {left:.2g}): the engine was given texts"
                yield Cause(RETOKENISED, what, "it must be given token ids, and add nothing to them", left)

    def _pattern(self, suspects: Sequence[Suspect], limit: float) -> Cause | None:
        """Responses whose ids are not those that were sampled agree up to a place."""
        told = self.ranks.gather([was_encoded_again(*_in_order(each), limit) for each in suspects])
        off = [each for each in told if each is not None]
        if not off or sum(off) < len(off) / 2:
            return None
        what = (
            f"in {sum(off)} of {len(told)} rows looked at they agree up to a place, and are other tokens' from there on"
        )
        return Cause(RETOKENISED, what, "the engine must return the ids that it sampled, not those of their text")

    def _size(self, rows: Sequence[Batch], gap: float, noise: float) -> Cause | None:
        tokens = sum(self.ranks.gather([int(row.response_mask.sum()) for row in rows]))
        if gap > LIKE_NOISE * (1 + 4 / math.sqrt(tokens)) * noise:
            return None
        what = f"rounding to bf16 moves the trainer's own numbers by {noise:.2g}, so rounding explains it"
        accepted = max(2 * gap, LIMITS["bf16"])
        remedy = "give --engine_dtype fp32" if self.exact else f"accept it with --max_logprob_gap {accepted:.1g}"
        return Cause("precision", what, remedy)

    def _weights(self) -> Cause:
        what = "neither another temperature nor filters, other tokens or rounding make them equal"
        if self.weights():
            return Cause("unknown", f"{what}, and the weights are equal: it computes something else", OTHER_ENGINE)
        return Cause("stale weights", f"{what}: its weights are not the trainer's", OTHER_ENGINE)


def at(temperature: float) -> Hypothesis:
    """log softmax(logits / temperature)."""
    return lambda logits, tokens: _picked((logits / temperature).log_softmax(-1), tokens)


def after_filters(sampling: Sampling, keep: Keep) -> Hypothesis:
    """log(p / the mass that the filters keep)."""

    def hypothesis(logits: Tensor, tokens: Tensor) -> Tensor:
        logp = (logits / sampling.temperature).log_softmax(-1)
        p = logp.exp()
        return _picked(logp, tokens) - keep(p, p.sum(-1), sampling).sum(-1).log()

    return hypothesis


def spread(mask: Tensor, most: int) -> Tensor:
    """mask [1, T] with at most `most` of its ones, evenly spread."""
    places = mask[0].nonzero()[:, 0]
    chosen = torch.linspace(0, max(len(places) - 1, 0), min(most, len(places)), device=mask.device).round().long()
    return torch.zeros_like(mask).index_fill(1, places[chosen], 1)


def _in_order(suspect: Suspect) -> tuple[list[float], list[float]]:
    compared = suspect.compared[0] == 1
    return suspect.gaps[0][compared].tolist(), suspect.batch.rollout_logprobs[0][compared].tolist()


def _picked(logp: Tensor, tokens: Tensor) -> Tensor:
    return logp.gather(-1, tokens[:, None])[:, 0]


def _flags(sampling: Sampling) -> str:
    off = Sampling(1)
    names = [name for name in ("top_p", "top_k", "min_p") if getattr(sampling, name) != getattr(off, name)]
    return " ".join(f"--{name} {getattr(sampling, name):g}" for name in names)
