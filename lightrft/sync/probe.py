"""A few tokens sampled right after a sync, unfiltered and at temperature 1, and scored by the trainer at once.

The rollouts themselves are compared at every step (parity.py), which costs nothing. The probe is for what comes before
them: an evaluation samples from the engine too. So it runs after the first sync of a run, and after every sync where
the engine has no fingerprints by which its weights could be told (docs/engines.md has what it costs).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from lightrft.batch import Batch, collate
from lightrft.models.token_model import TokenModel
from lightrft.ranks.base import Ranks, World
from lightrft.ranks.together import on_all
from lightrft.rollouts.engines.base import InferenceEngine, Sampling
from lightrft.sync.parity import Seen, Verdict
from lightrft.types import Generation, Prompt, Request, Rollout

NEW_TOKENS = 4  # at most
SAMPLES = 2
PROMPT = 64  # tokens at most: what is compared does not depend on what they say


class Probe:
    """prompt_ids, sampling: what is asked. everyone: all processes, each with an engine, of which some may share their
    rows. known: whether anybody knows that the engine holds the weights that it was sent."""

    def __init__(
        self,
        engine: InferenceEngine,
        policy: TokenModel,
        world: World,
        everyone: Ranks,
        prompt_ids: Sequence[int],
        sampling: Sampling,
        verdict: Verdict,
        known: Callable[[], bool],
    ) -> None:
        self.engine, self.policy, self.world, self.everyone = engine, policy, world, everyone
        self.prompt_ids, self.sampling = tuple(prompt_ids[:PROMPT]), sampling
        self.verdict, self.known = verdict, known
        self.first = True

    @torch.no_grad()
    def __call__(self, version: int) -> None:
        """When the engine has got the weights of `version`. All processes together."""
        if self.engine.shares_weights or not (self.first or not self.known()):
            return
        batch = self._sampled()
        own = self.policy.logprobs(batch).logprobs
        compared = batch.response_mask * batch.rollout_logprobs.isfinite()
        self.first = False
        self.verdict([Seen(batch, (own - batch.rollout_logprobs).abs(), compared)], version, between=True)

    def _sampled(self) -> Batch:
        """The rows of this data-parallel rank: those of all its processes' engines."""
        request = Request(self.prompt_ids, tuple(range(SAMPLES)))
        made = on_all(self.everyone, lambda: self.engine.generate([request], self.sampling, at_once=1)[0])
        start = self.world.dp_rank * self.world.sp_size
        own = [generation for each in made[start : start + self.world.sp_size] for generation in each]
        return collate([_row(generation) for generation in own], self.sampling.temperature, self.world.device)


def probe_sampling(max_new_tokens: int) -> Sampling:
    """Unfiltered, at temperature 1; of no more tokens than the run samples, for which the engine was made."""
    return Sampling(min(NEW_TOKENS, max_new_tokens))


def _row(made: Generation) -> Rollout:
    return Rollout(
        prompt=Prompt("probe", ()),
        group=0,
        prompt_ids=made.prompt_ids,
        response_ids=made.response_ids,
        response="",
        response_mask=(1,) * len(made.response_ids),
        rollout_logprobs=made.logprobs,
        finish_reason=made.finish_reason,
        policy_version=0,
    )
