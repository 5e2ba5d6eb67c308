"""What turns rollouts into optimizer steps: the strategy, advantages, critic, scorer, updater."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel

from lightrft.algorithms.estimator import Estimator
from lightrft.args import Args
from lightrft.args.batching import rows_per_pass
from lightrft.args.conditions import flag_of_segments, gathers_once_a_step, holds_all, needs_entropy, ref_shard_size
from lightrft.args.groups.model import ModelArgs
from lightrft.models.adapters import adapters_of
from lightrft.models.critic import critic_args, critic_name, load_critic
from lightrft.models.empty import GivenWeights
from lightrft.models.freezing import trains_language
from lightrft.models.output_head import check_head
from lightrft.models.packing import Cost
from lightrft.models.products import multiply_by_onednn
from lightrft.models.recompute import recompute_layers
from lightrft.models.segment_check import takes_segments, with_segments_checked
from lightrft.models.sequence_checks import check_parts
from lightrft.models.sequence_parallel import share_sequences
from lightrft.models.token_model import TokenCritic, TokenModel
from lightrft.ranks.base import Ranks, World
from lightrft.recipe import (
    advantage_settings,
    aggregation,
    frozen_steps,
    needs_old_logprobs,
    optim_args,
    shaping_settings,
)
from lightrft.strategy.base import Handle, OptimArgs, Precision, Strategy
from lightrft.strategy.frozen import Frozen
from lightrft.strategy.one_process import OneProcess
from lightrft.types import Request
from lightrft.update.advantages import AdvantageStage
from lightrft.update.base import Watch
from lightrft.update.critic import Critic
from lightrft.update.ema import MovingAverage
from lightrft.update.kl import KLTerm
from lightrft.update.partition import MicroBatchSize
from lightrft.update.score import Scorer
from lightrft.update.step import Updater, UpdateSettings


def make_strategy(args: Args, world: World, precision: Precision) -> Strategy:
    if holds_all(args, world.size, precision.compute):
        return OneProcess(world, _frozen(args, world))
    return make_sharding(args, world, precision)


def make_sharding(args: Args, world: World, precision: Precision) -> Strategy:
    """The library's that the flags name, also where it has nothing to shard."""
    d, offload, frozen = args.distributed, args.memory.adam_offload, _frozen(args, world)
    if d.fsdp:
        from lightrft.strategy.fsdp2 import FSDP2Strategy

        return FSDP2Strategy(
            world,
            precision,
            shard_size=d.hybrid_shard_size,
            cpu_offload=d.fsdp_cpu_offload,
            adam_offload=offload and not d.fsdp_cpu_offload,
            masters_apart=args.memory.use_mp_opt,
            once_a_step=gathers_once_a_step(args, world.size),
            frozen=frozen,
        )
    from lightrft.strategy.deepspeed import DeepSpeedStrategy

    return DeepSpeedStrategy(
        world,
        precision,
        d.zero_stage,
        adam_offload=offload,
        zpg=d.zpg,
        overlap_comm=d.overlap_comm,
        frozen=frozen,
    )


def _frozen(args: Args, world: World) -> Frozen:
    return Frozen(ref_shard_size(args, world.size), args.memory.ref_offload or args.distributed.fsdp_cpu_offload)


def make_token_model(
    args: Args, strategy: Strategy, model: PreTrainedModel, optim: OptimArgs | None, blank: Request | None = None
) -> TokenModel:
    """The policy, or with `optim` None a frozen reference. Its costs are counted before its parameters are sharded.

    blank: a prompt with an image, for a model that sees.
    """
    name = f"--pretrain {args.model.pretrain}"
    ranks, sharing = share_sequences(model, strategy.world), share_prompts(args, model, name)
    if optim is not None:
        compute_layers_twice(args, model, name)
    multiply_by_onednn(model, strategy.world.device)
    handle = strategy.prepare(model, optim, given_weights(args, args.model, model))
    handle.adapters = adapters_of(model)
    seen = blank if blank is not None and needs_images(strategy.world, model) else None
    chunk = args.memory.chunk_size if args.memory.fused_linear_logprob else None
    prepared = TokenModel(handle, sharing, ranks, seen, args.memory.packing_samples, chunk)
    check_parts(prepared, name)
    if chunk is not None:
        check_head(handle, name)
    return with_segments_checked(prepared, name, flag_of_segments(args), blank)


def compute_layers_twice(args: Args, model: nn.Module, name: str) -> None:
    """Where `--gradient_checkpointing` asks for it."""
    if args.distributed.gradient_checkpointing:
        once = args.memory.recompute_granularity == "selective"
        recompute_layers(model, name, attention_once=once, on_host=args.memory.activation_offload)


def as_it_began(policy: TokenModel) -> TokenModel:
    """The reference of a policy with adapters: itself without them, or with those that the run began with."""
    return replace(policy, at_the_start=True)


def needs_images(world: World, model: PreTrainedModel) -> bool:
    """Whether every pass of a model that sees has to have an image: other processes may have one, or nothing of its
    language model trains, and then texts alone lead to no parameter that does."""
    return world.size > 1 or not trains_language(model)


def given_weights(args: Args, model_args: ModelArgs, model: nn.Module) -> GivenWeights | None:
    """Of a model that was loaded without."""
    return GivenWeights(model_args, model) if args.distributed.meta_init else None


def make_advantages(args: Args, ranks: Ranks, estimator: Estimator, kl: KLTerm) -> AdvantageStage:
    return AdvantageStage(ranks, estimator, kl, shaping_settings(args), advantage_settings(args, estimator))


def make_critic(
    args: Args,
    strategy: Strategy,
    estimator: Estimator,
    dtype: torch.dtype,
    steps: int,
    blank: Request | None = None,
) -> Critic | None:
    """A model and an optimizer of its own, for the estimators that need one. blank: as for `make_token_model`."""
    if "critic" not in estimator.needs:
        return None
    model = load_critic(args.model, dtype, strategy.world.device, empty=args.distributed.meta_init)
    name = critic_name(args.model)
    ranks, sharing = share_sequences(model.backbone, strategy.world), share_prompts(args, model.backbone, name)
    optim = replace(optim_args(args, steps), learning_rate=args.training.critic_learning_rate)
    weights = given_weights(args, critic_args(args.model), model)
    compute_layers_twice(args, model, name)
    multiply_by_onednn(model, strategy.world.device)
    handle = strategy.prepare(cast(PreTrainedModel, model), optim, weights)
    seen = blank if strategy.world.size > 1 else None
    prepared = TokenCritic(handle, sharing, ranks, seen, args.memory.packing_samples)
    check_parts(prepared, name)
    checked = with_segments_checked(prepared, name, flag_of_segments(args), blank)
    return Critic(strategy, checked, clip=args.algorithm.value_clip)


def make_average(args: Args, strategy: Strategy, policy: Handle, everyone: Ranks) -> MovingAverage | None:
    """Of the policy, where it is asked for; from the weights that it has now."""
    beta = args.training.ema_beta
    return MovingAverage(strategy, policy, beta, everyone) if args.training.enable_ema else None


def make_updater(
    args: Args,
    strategy: Strategy,
    policy: TokenModel,
    estimator: Estimator,
    kl: KLTerm,
    critic: Critic | None = None,
    average: MovingAverage | None = None,
    watch: Watch | None = None,
    *,
    apart: bool = False,
) -> Updater:
    settings = UpdateSettings(
        algorithm=args.algorithm,
        batch=args.batch,
        aggregation=aggregation(args, estimator),
        max_epochs=args.training.max_epochs,
        max_new_tokens=args.model.max_new_tokens,
        seed=args.training.seed,
        frozen_steps=frozen_steps(args, estimator),
        fire=args.sampling.use_fire,
        apart=apart,
    )
    return Updater(strategy, policy, estimator, kl, settings, critic, average, watch)


def share_prompts(args: Args, model: PreTrainedModel, name: str) -> Cost | None:
    """The costs to weigh where prompts may be shared, else None. Refuses a model that a flag asks too much of."""
    possible = takes_segments(model, name, flag_of_segments(args))
    return Cost.of(model) if possible and args.memory.share_prompts is not False else None


def make_scorer(
    args: Args,
    strategy: Strategy,
    policy: TokenModel,
    reference: TokenModel | None,
    kl: KLTerm,
    critic: Critic | None = None,
) -> Scorer:
    return Scorer(
        strategy,
        policy,
        reference,
        critic,
        size=MicroBatchSize(
            rows_per_pass(args), args.batch.max_tokens_per_micro_batch, policy.shares_prompts, policy.packs
        ),
        scores_policy=needs_old_logprobs(args, kl),
        with_entropy=needs_entropy(args),
    )
