"""Where a rollout is made: prompts to an engine, its tokens to text, text to rewards."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from lightrft.algorithms.control import TemperatureSchedule
from lightrft.errors import RunFailed, warn
from lightrft.groups import varied_groups
from lightrft.prompts.bad_rows import BadRow
from lightrft.prompts.encoder import Encoder
from lightrft.prompts.sampler import PromptSampler
from lightrft.ranks.base import ONE_RANK, Ranks
from lightrft.ranks.together import together
from lightrft.rewards.base import RewardSource
from lightrft.rollouts.engines.base import EngineFailed, InferenceEngine, Sampling
from lightrft.rollouts.engines.noise import response_seed
from lightrft.rollouts.intake import Intake
from lightrft.types import Generation, Prompt, Request, Rollout


class RolloutMaker:
    """Prompts to rewarded rollouts. Training and evaluation have one each, over one engine.

    at_once: most prompts that the engine decodes together. renew: puts a fresh engine with
    the same weights in the place of one that failed. ranks: of all processes, each with an engine of its own. skips:
    whether a prompt whose images cannot be read is left out; else it ends the run.
    """

    def __init__(
        self,
        encoder: Encoder,
        engine: InferenceEngine,
        rewards: RewardSource,
        seed: int,
        at_once: int,
        renew: Callable[[], None],
        ranks: Ranks = ONE_RANK,
        *,
        skips: bool = False,
    ) -> None:
        self.encoder, self.engine, self.rewards, self.seed, self.at_once = encoder, engine, rewards, seed, at_once
        self.renew, self.ranks, self.intake = renew, ranks, Intake(encoder, ranks, skips=skips)

    def share(self, prompts: Sequence[Prompt]) -> Sequence[Prompt]:
        """Those that this rank's engine answers."""
        return self.intake.share(prompts)

    def make(
        self, prompts: Sequence[Prompt], step: int, n: int, sampling: Sampling, enough: int | None = None
    ) -> list[Rollout]:
        """`n` rollouts per prompt, side by side; the prompt's `position` is their group. Step 0 is an evaluation.
        enough: prompts after which the engine gives up the others.

        Every rank takes part, also without prompts: an engine may need all of them to gather its weights. Where one
        rank's engine fails, all ranks try once more, on fresh engines.
        """
        with together(self.ranks):
            requests = [self._request(prompt, step, n) for prompt in prompts]
        try:
            generated = self._generate(requests, step, sampling, enough)
        except EngineFailed as failed:
            warn(f"{failed}; trying once more on a fresh engine")
            self.renew()
            generated = self._generate(requests, step, sampling, enough)
        with together(self.ranks):
            return self._rewarded(prompts, requests, generated, sampling)

    def _generate(
        self, requests: Sequence[Request], step: int, sampling: Sampling, enough: int | None
    ) -> list[list[Generation]]:
        with together(self.ranks):
            try:
                return self.engine.generate(requests, sampling, at_once=self.at_once, enough=enough)
            except RunFailed as failed:
                raise type(failed)(f"{f'step {step}' if step else 'evaluation'}: {failed}") from failed

    def _rewarded(
        self,
        prompts: Sequence[Prompt],
        requests: Sequence[Request],
        generated: Sequence[Sequence[Generation]],
        sampling: Sampling,
    ) -> list[Rollout]:
        rollouts = [
            self._rollout(prompt, request, sample, generation, sampling.stop)
            for prompt, request, group in zip(prompts, requests, generated, strict=True)
            for sample, generation in enumerate(group)
        ]
        rewards = self.rewards.score(rollouts) if rollouts else []
        return [replace(rollout, reward=reward) for rollout, reward in zip(rollouts, rewards, strict=True)]

    def stats(self, prefix: str) -> dict[str, float]:
        """What the engine has counted since it was asked last, under `prefix` and its own names."""
        return {f"{prefix}{name}": value for name, value in self.engine.stats().items()}

    def _request(self, prompt: Prompt, step: int, n: int) -> Request:
        seeds = [response_seed(self.seed, step, prompt.position, prompt.id, sample) for sample in range(n)]
        try:
            return self.encoder.request(prompt, seeds)
        except BadRow as fault:
            raise RunFailed(f"{fault}; --on_bad_row skip takes another prompt") from fault

    def _rollout(
        self, prompt: Prompt, request: Request, sample: int, generation: Generation, stop: Sequence[str]
    ) -> Rollout:
        response = self.encoder.response(generation.response_ids)
        return Rollout(
            prompt=replace(prompt, token_ids=request.prompt_ids, opening=request.opening),
            group=prompt.position,
            prompt_ids=generation.prompt_ids,
            response_ids=generation.response_ids,
            response=response,
            response_mask=(1,) * len(generation.response_ids),
            rollout_logprobs=generation.logprobs,
            finish_reason=generation.finish_reason,
            policy_version=self.engine.version,
            mm_inputs=request.mm_inputs,
            sample=sample,
            sampling_mask=generation.sampling_mask,
            stop_text=_from_stop_text(response, stop),
        )


def _from_stop_text(response: str, stop: Sequence[str]) -> str:
    """The end of the response from the text on that ended it; empty where none of them did."""
    found = [place for text in stop if (place := response.rfind(text)) >= 0]
    return response[min(found) :] if found else ""


@dataclass(frozen=True)
class CollectSettings:
    """`prompts_per_step` groups of `n_samples`, sent to the engine `rollout_batch_size` prompts at a time.

    oversample: prompts that are started for each one that is needed; the engine gives up those that take longest.
    most_batches: with it, groups whose rewards are all equal are replaced by new prompts (DAPO's dynamic sampling),
    until the step is full or so many batches were sent; None = every group is kept.
    episodes: with it, passes over the prompts after which no batch is sent any more: those replaced count as drawn.
    """

    n_samples: int
    rollout_batch_size: int
    prompts_per_step: int
    oversample: float = 1.0
    most_batches: int | None = None
    episodes: float | None = None


class Collector:
    """Collects a rollout step at the temperature that the schedule has for it.

    The stream of prompts is that of all ranks: each takes the same prompts from it and answers its share of them.
    """

    def __init__(
        self, maker: RolloutMaker, sampling: Sampling, schedule: TemperatureSchedule, settings: CollectSettings
    ) -> None:
        self.maker, self.sampling, self.schedule, self.settings = maker, sampling, schedule, settings
        self.seen: dict[str, float] = {}

    def collect(self, prompts: PromptSampler, step: int) -> list[Rollout]:
        """This rank's rows in the order of their groups. Where no group at all varies, all of them with nothing to
        train on."""
        sampling = replace(self.sampling, temperature=self.temperature(step))
        self.seen = {"rollout/temperature": sampling.temperature}
        most = self.settings.most_batches
        chosen = self._all(prompts, step, sampling) if most is None else self._varied(prompts, step, sampling, most)
        if self.maker.intake.skips:
            self.seen["rollout/unreadable"], self.maker.intake.left_out = float(self.maker.intake.left_out), 0
        self.seen |= self.maker.stats("perf/")
        return chosen

    def close(self) -> None:
        """Nobody asks for the images that are still to be read."""
        self.maker.encoder.reader.close()

    def over(self, prompts: PromptSampler) -> bool:
        """Whether the prompts of the run are used up, which ends it earlier than its steps do."""
        return self.settings.episodes is not None and prompts.episode >= self.settings.episodes

    def temperature(self, step: int) -> float:
        return self.schedule.at(step - 1)

    def stats(self) -> dict[str, float]:
        """Of the last step: its temperature, what dynamic sampling did, and what the engine counted."""
        return self.seen

    def _all(self, prompts: PromptSampler, step: int, sampling: Sampling) -> list[Rollout]:
        found: list[Rollout] = []
        for start in range(0, self.settings.prompts_per_step, self.settings.rollout_batch_size):
            wanted = min(self.settings.rollout_batch_size, self.settings.prompts_per_step - start)
            found += self._batch(prompts, wanted, step, sampling)[1]
        return found

    def _varied(self, prompts: PromptSampler, step: int, sampling: Sampling, most: int) -> list[Rollout]:
        """What all ranks have sampled decides, so they all send as many batches and keep the same groups."""
        s, batches, own = self.settings, 0, []
        taken: dict[int, Prompt] = {}
        told: list[tuple[int, float]] = []
        varied: list[int] = []
        while not batches or (len(varied) < s.prompts_per_step and batches < most and not self.over(prompts)):
            batch, latest = self._batch(prompts, s.rollout_batch_size, step, sampling)
            taken |= {prompt.position: prompt for prompt in batch}
            own, batches = own + latest, batches + 1
            told += self.maker.ranks.gather([(rollout.group, rollout.valid_reward) for rollout in latest])
            varied = sorted(varied_groups([group for group, _ in told], [reward for _, reward in told]))
        chosen, surplus = varied[: s.prompts_per_step], varied[s.prompts_per_step :]
        prompts.give_back([taken[group] for group in surplus])
        self.seen |= {
            "rollout/batches": float(batches),
            "rollout/varied_groups_frac": len(varied) * s.n_samples / len(told),
            "reward/sampled_mean": _mean([reward for _, reward in told]),
        }
        if not varied:
            return [replace(rollout, response_mask=(0,) * rollout.length) for rollout in own]
        return [rollout for rollout in own if rollout.group in set(chosen)]

    def _batch(
        self, prompts: PromptSampler, wanted: int, step: int, sampling: Sampling
    ) -> tuple[list[Prompt], list[Rollout]]:
        """So many prompts, and this rank's rollouts of them. With `oversample` more are started, and those that take
        longest go back to the stream."""
        s, ranks = self.settings, self.maker.ranks
        if s.oversample == 1.0:
            batch = self._taken(prompts, wanted)
            return batch, self.maker.make(self.maker.share(batch), step, s.n_samples, sampling)
        count = math.ceil(wanted * s.oversample / ranks.size) * ranks.size
        started = self._taken(prompts, count)
        own = wanted // ranks.size + (ranks.rank < wanted % ranks.size)
        made = self.maker.make(self.maker.share(started), step, s.n_samples, sampling, enough=own)
        done = set(sorted(ranks.gather(list({rollout.group for rollout in made})))[:wanted])
        prompts.give_back([prompt for prompt in started if prompt.position not in done])
        self.seen["rollout/given_up"] = self.seen.get("rollout/given_up", 0.0) + len(started) - len(done)
        kept = [rollout for rollout in made if rollout.group in done]
        return [prompt for prompt in started if prompt.position in done], kept

    def _taken(self, prompts: PromptSampler, count: int) -> list[Prompt]:
        """The next prompts; while they are answered, the images of those after them are read."""
        intake = self.maker.intake
        taken = intake.take(prompts, count)
        if intake.sees:
            begun = intake.read_ahead(taken, prompts, count)
            self.seen["perf/prompts_read_ahead"] = self.seen.get("perf/prompts_read_ahead", 0.0) + begun
        return taken


def _mean(rewards: Sequence[float]) -> float:
    """Of the valid ones."""
    valid = [reward for reward in rewards if not math.isnan(reward)]
    return fmean(valid) if valid else math.nan
