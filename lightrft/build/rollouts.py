"""What makes rollouts: prompts to an engine, its responses to rewards. Commands that only sample build this alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from transformers import PreTrainedModel

from lightrft.args import Args
from lightrft.engine_choice import choose_engine
from lightrft.evaluation import Evaluator
from lightrft.hardware import DTYPES, choose_precision
from lightrft.models.adapters import adapters_of
from lightrft.models.load import load_model
from lightrft.models.suitable import end_token_ids
from lightrft.preflight import Inputs
from lightrft.prompts.sampler import PromptSampler
from lightrft.ranks.base import ONE_RANK, Ranks, World, alone
from lightrft.recipe import collect_settings, eval_sampling, sampling, temperature_schedule, total_steps
from lightrft.rollouts.collector import Collector, RolloutMaker
from lightrft.rollouts.engines.base import InferenceEngine
from lightrft.rollouts.engines.local import LocalEngine, OwnWeights
from lightrft.rollouts.engines.offers import OFFERS
from lightrft.rollouts.engines.probe import needs_equal_lengths
from lightrft.strategy.base import Handle, Precision, named_tensors, without_adapters
from lightrft.sync.weights import push

Borrow = Callable[[], AbstractContextManager[PreTrainedModel]]


@dataclass(frozen=True)
class Rollouts:
    """The stream of prompts and the collector for training; an evaluator where there are prompts for it."""

    prompts: PromptSampler
    collector: Collector
    evaluator: Evaluator | None


@contextmanager
def load_rollouts(args: Args, inputs: Inputs, device: torch.device) -> Iterator[Rollouts]:
    """From the model of `--pretrain` as it is: there is no strategy, no optimizer and no trainer. The engine is closed
    at the end, whatever that is."""
    seed_everything(args.training.seed)
    precision, _ = choose_precision(args)
    # As the policy: torch takes another way through weights that need no gradient, and the last bits would differ.
    model = load_model(args.model, DTYPES[precision.compute], device, trains=True, seed=args.training.seed)
    handle = Handle(model, model, adapters=adapters_of(model))
    engine = make_engine(args, inputs, precision, lambda: nullcontext(model), alone(device))

    def hand_over() -> None:
        push(model, without_adapters(handle, named_tensors(model)), engine, 0)

    def renew() -> None:
        engine.restart()
        hand_over()

    try:
        hand_over()
        yield make_rollouts(args, inputs, engine, renew)
    finally:
        engine.close()


def make_rollouts(
    args: Args, inputs: Inputs, engine: InferenceEngine, renew: Callable[[], None], ranks: Ranks = ONE_RANK
) -> Rollouts:
    """renew: puts a fresh engine with the same weights in the place of one that failed. ranks: of all processes."""
    seed, rewards = args.training.seed, inputs.rewards
    skips = args.data.on_bad_row == "skip" and inputs.encoder.vision is not None
    maker = partial(RolloutMaker, inputs.encoder, engine, rewards, seed, renew=renew, ranks=ranks, skips=skips)
    train, held_out = maker(args.batch.micro_rollout_batch_size), maker(args.evaluation.eval_batch_size)
    schedule = temperature_schedule(args, total_steps(args, len(inputs.prompts)))
    evaluator = None
    if inputs.eval_prompts:
        evaluator = Evaluator(held_out, inputs.eval_prompts, eval_sampling(args), rewards.primary)
    return Rollouts(
        PromptSampler(inputs.prompts, seed, args.data.prompt_data_probs),
        Collector(train, sampling(args), schedule, collect_settings(args)),
        evaluator,
    )


def make_engine(args: Args, inputs: Inputs, precision: Precision, borrow: Borrow, world: World) -> InferenceEngine:
    """borrow: a context manager that yields the model to sample from, whole, for the engine that has no own weights."""
    model, kind = args.model, choose_engine(args, videos=inputs.have_videos).kind
    ends, asked = end_token_ids(model, inputs.tokenizer), args.engine.engine_dtype
    dtype = DTYPES[precision.compute if asked == "auto" else asked]
    if kind != "local":
        beside = {} if inputs.encoder.vision is None else {"vision": inputs.encoder.vision}
        beside |= {"videos": True} if inputs.have_videos else {}
        return OFFERS[kind].module.make(model, args.engine, inputs.tokenizer, ends, dtype, world, **beside)
    apart = needs_equal_lengths(borrow, inputs.text_ids(), precision.compute, model.pretrain)
    own = None
    if dtype != DTYPES[precision.compute]:
        own = OwnWeights(partial(load_model, model, dtype, world.device, trains=False), dtype)
    return LocalEngine(borrow, inputs.tokenizer, ends, equal_lengths=apart, own=own)


def seed_everything(seed: int) -> None:
    """For users' reward functions; our own randomness is counter-based."""
    random.seed(seed)
    np.random.seed(seed % (1 << 32))
    torch.manual_seed(seed)
