"""What makes rollouts: engines, rewards and the collectors over them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

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
class Rollouts:
    """What makes rollouts for training, and for evaluation where there are prompts for it, over one engine."""

    engine: LocalEngine
    collector: Collector
    evaluator: Evaluator | None


def make_rollouts(
    args: Args,
    inputs: Inputs,
    borrow: Callable[[], AbstractContextManager[PreTrainedModel]],
    schedule: TemperatureSchedule,
) -> Rollouts:
    ends = end_token_ids(args.model, inputs.tokenizer)
    apart = needs_equal_lengths(
        borrow, inputs.prompts[0].token_ids, choose_precision(args)[0].compute, args.model.pretrain
    )
    engine = LocalEngine(borrow, inputs.tokenizer, ends, equal_lengths=apart)
    maker = partial(RolloutMaker, engine, inputs.rewards, inputs.tokenizer, args.training.seed)
    train, held_out = maker(args.batch.micro_rollout_batch_size), maker(args.evaluation.eval_batch_size)
    collector = Collector(train, sampling(args), schedule, collect_settings(args))
    evaluator = None
    if inputs.eval_prompts:
        evaluator = Evaluator(held_out, inputs.eval_prompts, eval_sampling(args), inputs.rewards.primary)
    return Rollouts(engine, collector, evaluator)
