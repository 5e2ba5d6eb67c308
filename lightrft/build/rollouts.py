"""What makes rollouts: prompts to an engine, its responses to rewards. Commands that only sample build this alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from transformers import PreTrainedModel

from lightrft.args import Args
from lightrft.engine_choice import choose_engine
from lightrft.evaluation import Evaluator
from lightrft.hardware import DTYPES, choose_precision
from lightrft.models.load import load_model
from lightrft.models.suitable import end_token_ids
from lightrft.preflight import Inputs
from lightrft.prompts.encoder import Encoder
from lightrft.prompts.sampler import PromptSampler
from lightrft.ranks.base import ONE_RANK, Ranks, World, alone
from lightrft.recipe import collect_settings, eval_sampling, sampling, temperature_schedule, total_steps
from lightrft.rollouts.collector import Collector, RolloutMaker
from lightrft.rollouts.engines.base import InferenceEngine
from lightrft.rollouts.engines.local import LocalEngine, OwnWeights
from lightrft.rollouts.engines.offers import OFFERS
from lightrft.rollouts.engines.probe import needs_equal_lengths
from lightrft.strategy.base import Precision, named_tensors
from lightrft.sync.weights import push

Borrow = Callable[[], AbstractContextManager[PreTrainedModel]]
PADDING = "padding changes what this model computes; only prompts of one length share a batch"


@dataclass(frozen=True)
class Rollouts:
    """One engine; the stream of prompts and the collector for training; an evaluator where there are prompts for it."""

    prompts: PromptSampler
    engine: InferenceEngine
    collector: Collector
    evaluator: Evaluator | None
    notices: tuple[str, ...] = ()


def load_rollouts(args: Args, inputs: Inputs, device: torch.device) -> Rollouts:
    """From the model of `--pretrain` as it is: there is no strategy, no optimizer and no trainer."""
    seed_everything(args.training.seed)
    # as in a training, for the same bits: torch chooses among matrix products by whether a weight requires a gradient
    precision, _ = choose_precision(args)
    # As the policy: torch takes another way through weights that need no gradient, and the last bits would differ.
    model = load_model(args.model, DTYPES[precision.compute], device, trains=True)
    rollouts = make_rollouts(args, inputs, precision, lambda: nullcontext(model), alone(device))
    push(model, named_tensors(model), rollouts.engine, 0)
    return rollouts


def make_rollouts(
    args: Args, inputs: Inputs, precision: Precision, borrow: Borrow, world: World, ranks: Ranks = ONE_RANK
) -> Rollouts:
    """borrow: a context manager that yields the model to sample from, whole. ranks: of all processes."""
    seed, rewards = args.training.seed, inputs.rewards
    engine = _make_engine(args, inputs, precision, borrow, world)
    maker = partial(RolloutMaker, Encoder(inputs.tokenizer), engine, rewards, seed, ranks=ranks)
    train, held_out = maker(args.batch.micro_rollout_batch_size), maker(args.evaluation.eval_batch_size)
    schedule = temperature_schedule(args, total_steps(args, len(inputs.prompts)))
    evaluator = None
    if inputs.eval_prompts:
        evaluator = Evaluator(held_out, inputs.eval_prompts, eval_sampling(args), rewards.primary)
    return Rollouts(
        PromptSampler(inputs.prompts, seed, args.data.prompt_data_probs),
        engine,
        Collector(train, sampling(args), schedule, collect_settings(args)),
        evaluator,
        (PADDING,) if isinstance(engine, LocalEngine) and engine.equal_lengths else (),
    )


def _make_engine(args: Args, inputs: Inputs, precision: Precision, borrow: Borrow, world: World) -> InferenceEngine:
    model, kind = args.model, choose_engine(args).kind
    ends, asked = end_token_ids(model, inputs.tokenizer), args.engine.engine_dtype
    dtype = DTYPES[precision.compute if asked == "auto" else asked]
    if kind != "local":
        return OFFERS[kind].module.make(model, args.engine, inputs.tokenizer, ends, dtype, world)
    apart = needs_equal_lengths(borrow, inputs.prompts[0].token_ids, precision.compute, model.pretrain)
    own = None
    if dtype != DTYPES[precision.compute]:
        own = OwnWeights(partial(load_model, model, dtype, world.device, trains=False), dtype)
    return LocalEngine(borrow, inputs.tokenizer, ends, equal_lengths=apart, own=own)


def seed_everything(seed: int) -> None:
    """For users' reward functions; our own randomness is counter-based."""
    random.seed(seed)
    np.random.seed(seed % (1 << 32))
    torch.manual_seed(seed)
