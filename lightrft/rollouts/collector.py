"""Where a rollout is made: prompts to an engine, its tokens to text, text to rewards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from lightrft.prompts.encoding import decode_response
from lightrft.prompts.sampler import PromptSampler
from lightrft.rewards.base import RewardSource
from lightrft.rollouts.engines.base import InferenceEngine, Sampling
from lightrft.rollouts.engines.noise import response_seed
from lightrft.types import Generation, Prompt, Request, Rollout

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class RolloutMaker:
    """Prompts to rewarded rollouts; training and evaluation make theirs here."""

    def __init__(
        self, engine: InferenceEngine, rewards: RewardSource, tokenizer: PreTrainedTokenizerBase, seed: int
    ) -> None:
        self.engine, self.rewards, self.tokenizer, self.seed = engine, rewards, tokenizer, seed

    def make(self, prompts: Sequence[Prompt], step: int, n: int, sampling: Sampling) -> list[Rollout]:
        """`n` rollouts per prompt, side by side; the prompt's `position` is their group."""
        requests = [self._request(prompt, step, n) for prompt in prompts]
        generated = self.engine.generate(requests, sampling)
        rollouts = [
            self._rollout(prompt, generation)
            for prompt, group in zip(prompts, generated, strict=True)
            for generation in group
        ]
        rewards = self.rewards.score(rollouts)
        return [replace(rollout, reward=reward) for rollout, reward in zip(rollouts, rewards, strict=True)]

    def _request(self, prompt: Prompt, step: int, n: int) -> Request:
        seeds = tuple(response_seed(self.seed, step, prompt.position, prompt.id, sample) for sample in range(n))
        return Request(prompt.token_ids, seeds)

    def _rollout(self, prompt: Prompt, generation: Generation) -> Rollout:
        return Rollout(
            prompt=prompt,
            group=prompt.position,
            prompt_ids=generation.prompt_ids,
            response_ids=generation.response_ids,
            response=decode_response(self.tokenizer, generation.response_ids),
            response_mask=(1,) * len(generation.response_ids),
            rollout_logprobs=generation.logprobs,
            finish_reason=generation.finish_reason,
            policy_version=self.engine.version,
        )


class Collector:
    """Collects a rollout step: `prompts_per_step` groups, sent to the engine `rollout_batch_size` prompts at a time."""

    def __init__(
        self, maker: RolloutMaker, sampling: Sampling, *, n_samples: int, rollout_batch_size: int, prompts_per_step: int
    ) -> None:
        self.maker, self.sampling, self.n_samples = maker, sampling, n_samples
        self.rollout_batch_size, self.prompts_per_step = rollout_batch_size, prompts_per_step

    def collect(self, prompts: PromptSampler, step: int) -> list[Rollout]:
        found: list[Rollout] = []
        for start in range(0, self.prompts_per_step, self.rollout_batch_size):
            wanted = min(self.rollout_batch_size, self.prompts_per_step - start)
            found += self.maker.make(prompts.take(wanted), step, self.n_samples, self.sampling)
        return found
