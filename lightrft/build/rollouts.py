"""What makes rollouts: engines, rewards and the collectors over them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

from transformers import PreTrainedModel

from lightrft.algorithms.control import TemperatureSchedule
from lightrft.args import Args
from lightrft.evaluation import Evaluator
from lightrft.models.suitable import end_token_ids
from lightrft.plan import choose_precision
from lightrft.preflight import Inputs
from lightrft.recipe import collect_settings, eval_sampling, sampling
from lightrft.rollouts.collector import Collector, RolloutMaker
from lightrft.rollouts.engines.local import LocalEngine
from lightrft.rollouts.engines.probe import needs_equal_lengths


@dataclass(frozen=True)
class Sampler:
    """Training and evaluation sample with their own settings from engines of their own over one model."""

    collector: Collector
    evaluator: Evaluator | None
    engines: list[Any]


def make_samplers(
    args: Args,
    inputs: Inputs,
    borrow: Callable[[], AbstractContextManager[PreTrainedModel]],
    model: PreTrainedModel,
    schedule: TemperatureSchedule,
) -> Sampler:
    ends = end_token_ids(args.model, inputs.tokenizer)
    apart = needs_equal_lengths(
        borrow, inputs.prompts[0].token_ids, choose_precision(args)[0].compute, args.model.pretrain
    )
    engine = partial(LocalEngine, borrow, inputs.tokenizer, ends, equal_lengths=apart)
    train = engine(args.batch.micro_rollout_batch_size)
    maker = RolloutMaker(train, inputs.rewards, inputs.tokenizer, args.training.seed)
    collector = Collector(maker, sampling(args), schedule, collect_settings(args))
    if not inputs.eval_prompts:
        return Sampler(collector, None, [train])
    held_out = engine(args.evaluation.eval_batch_size, label="eval_")
    maker = RolloutMaker(held_out, inputs.rewards, inputs.tokenizer, args.training.seed)
    evaluator = Evaluator(maker, inputs.eval_prompts, eval_sampling(args), inputs.rewards.primary)
    return Sampler(collector, evaluator, [train, held_out])
