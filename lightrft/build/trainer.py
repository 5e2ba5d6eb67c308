"""All parts joined: arguments to a trainer that is ready to run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from lightrft.algorithms.estimator import Estimator, load_estimator
from lightrft.args import Args
from lightrft.args.rules.ignored_flags import cannot_matter
from lightrft.build.parity import ParityMaker
from lightrft.build.rollouts import make_engine, make_rollouts, seed_everything
from lightrft.build.tracking import make_loggers, run_record
from lightrft.build.update import (
    as_it_began,
    make_advantages,
    make_average,
    make_critic,
    make_scorer,
    make_strategy,
    make_token_model,
    make_updater,
)
from lightrft.errors import Refused
from lightrft.hardware import DTYPES, choose_precision
from lightrft.held_out import Evaluations
from lightrft.loop.checkpoint_folder import CheckpointFolder
from lightrft.loop.checkpointing import Checkpointer
from lightrft.loop.due import Due
from lightrft.loop.origin import origin
from lightrft.loop.placement import Placement
from lightrft.loop.progress import Progress
from lightrft.loop.structure import contents_of, structure_of
from lightrft.models.critic import critic_args, given_critic
from lightrft.models.flops import Work, device_peak
from lightrft.models.given import dtype_to_train, read_given
from lightrft.models.load import load_model
from lightrft.models.sight_check import check_sight
from lightrft.models.token_model import TokenModel
from lightrft.preflight import Inputs
from lightrft.ranks.base import ONE_RANK, Ranks
from lightrft.ranks.collectives import Collectives
from lightrft.ranks.launch import join_world
from lightrft.ranks.pulse import PULSE
from lightrft.ranks.together import together
from lightrft.recipe import frozen_steps, kl_term, optim_args, total_steps
from lightrft.rollouts.dealer import Dealer, Split
from lightrft.rollouts.engines.local import LocalEngine
from lightrft.strategy.base import Handle, Precision, Strategy
from lightrft.track.base import Loggers
from lightrft.track.clock import Clock
from lightrft.track.console import Console
from lightrft.track.profiler import Profiler
from lightrft.track.run_record import changes_told, write_record
from lightrft.track.speed import Speed
from lightrft.trainer import Trainer
from lightrft.types import Request
from lightrft.update.critic import Critic
from lightrft.update.ema import MovingAverage
from lightrft.update.kl import KLTerm
from lightrft.update.partition import draw_parts
from lightrft.update.step import Updater

PADDING = "padding changes what this model computes; only prompts of one length share a batch"


def make_checkpointer(
    args: Args,
    everyone: Ranks,
    strategy: Strategy,
    policy: Handle,
    critic: Critic | None,
    average: MovingAverage | None,
) -> Checkpointer:
    c = args.checkpoint
    given = {
        "policy": read_given(args.model, args.multimodal.processor),
        **({"critic": given_critic(args.model)} if critic else {}),
    }
    place = origin(args)
    folder = CheckpointFolder(place.folder, c.max_ckpt_num, c.max_ckpt_mem)
    return Checkpointer(
        folder,
        everyone,
        strategy,
        policy,
        given,
        critic=critic.model.handle if critic else None,
        average=average,
        with_hf=c.save_hf_ckpt,
        merges=args.model.lora_merge,
        structure=structure_of(args),
        contents=contents_of(args),
        origin=place,
        behind=strategy.world.device.type == "cuda",  # on a CPU the thread would take its time from the next step
    )


@dataclass(frozen=True)
class Models:
    """Loaded and prepared; the critic is one that learns, the reference is frozen."""

    policy: TokenModel
    critic: Critic | None
    reference: TokenModel | None
    work: Work | None


def load_models(
    args: Args,
    strategy: Strategy,
    precision: Precision,
    estimator: Estimator,
    steps: int,
    kl: KLTerm,
    blank: Request | None,
) -> Models:
    """Those that the flags ask for, on the strategy's device. blank: a prompt with an image, for models that see."""
    device, empty = strategy.world.device, args.distributed.meta_init
    dtype = torch.float32 if args.distributed.fsdp else DTYPES[precision.compute]
    learning = max(steps - frozen_steps(args, estimator), 0)
    own = dtype_to_train(args.model, dtype)
    model = load_model(args.model, own, device, trains=True, empty=empty, seed=args.training.seed)
    if empty and own != dtype:
        _refuse_frozen(args, model)
    work = Work.of(model)
    policy = make_token_model(args, strategy, model, optim_args(args, learning), blank)
    if blank is not None:
        check_sight(policy, blank, f"--pretrain {args.model.pretrain}")
    critic = make_critic(args, strategy, estimator, dtype_to_train(critic_args(args.model), dtype), steps, blank)
    reference = None
    if kl.needs_reference and policy.handle.adapters is not None:
        reference = as_it_began(policy)
    elif kl.needs_reference:
        frozen = load_model(args.model, DTYPES[precision.compute], device, trains=False, empty=empty)
        reference = make_token_model(args, strategy, frozen, None, blank)
    return Models(policy, critic, reference, work)


def _refuse_frozen(args: Args, model: nn.Module) -> None:
    """ZeRO-3 would hold it in 16 bits alone, and export it rounded; what trains has masters."""
    frozen = next((name for name, parameter in model.named_parameters() if not parameter.requires_grad), None)
    if frozen is not None:
        why = f"{frozen} is frozen, and --zero_stage 3 would round --pretrain {args.model.pretrain} to 16 bits"
        raise Refused(f"--meta_init: {why}; use --fsdp, or leave --meta_init out")


def first_epoch(args: Args) -> Split:
    """The optimizer steps of a turn's first epoch: for these the dealer balances tokens."""
    size, seed = args.batch.train_batch_size, args.training.seed
    return lambda n_rows, turn: [part.rows for part in draw_parts(n_rows, size, 1, seed=seed, turn=turn)]


def build_trainer(args: Args, inputs: Inputs) -> Trainer:
    """Loads the model, prepares it, and joins all parts; on `--load_checkpoint` goes on from the newest checkpoint."""
    world, (precision, _) = join_world(args.distributed.sp_size), choose_precision(args)
    everyone = Collectives(world, everyone=True) if world.size > 1 else ONE_RANK
    seed_everything(args.training.seed + world.rank)
    strategy, kl, steps = make_strategy(args, world, precision), kl_term(args), total_steps(args, len(inputs.prompts))
    estimator = load_estimator(args.algorithm.advantage_estimator)
    with PULSE.during("load"):
        models = load_models(args, strategy, precision, estimator, steps, kl, inputs.encoder.blank())
    policy, critic = models.policy, models.critic
    average = make_average(args, strategy, policy.handle, everyone)
    engine = make_engine(args, inputs, precision, lambda: strategy.gathered(policy.handle), world)
    progress = Progress(steps)
    first = world.rank == 0
    console = Console(steps, args.logging.logging_steps, quiet=args.logging.quiet, silent=not first)
    if isinstance(engine, LocalEngine) and engine.equal_lengths:
        console.unless_quiet(f"notice: {PADDING}")
    parity = ParityMaker(args, inputs, precision, strategy, policy, engine, everyone, console).make()
    sleeps, apart = args.engine.enable_engine_sleep, not engine.shares_weights
    placement = Placement(engine, parity.sync, sleeps=sleeps, after_sync=parity.probe)
    rollouts = make_rollouts(args, inputs, engine, placement.renew, everyone)
    clock, record = Clock(console.phase), run_record(args, policy.handle.model, inputs)
    log_dir, save_path = Path(args.logging.log_dir), Path(args.checkpoint.save_path)
    updater = make_updater(args, strategy, policy, estimator, kl, critic, average, parity.gate, apart=apart)
    trainer = Trainer(
        everyone=everyone,
        rows=strategy.ranks,
        prompts=rollouts.prompts,
        collector=rollouts.collector,
        dealer=Dealer(world, everyone, first_epoch(args)),
        scorer=make_scorer(args, strategy, policy, models.reference, kl, critic),
        advantages=make_advantages(args, strategy.ranks, estimator, kl),
        updater=updater,
        placement=placement,
        evaluations=Evaluations(rollouts.evaluator, args.evaluation.eval_steps, placement, progress, clock, console),
        checkpointer=make_checkpointer(args, everyone, strategy, policy.handle, critic, average),
        due=Due(args.checkpoint.save_steps, args.checkpoint.save_interval),
        progress=progress,
        loggers=Loggers(),
        console=console,
        clock=clock,
        profiler=Profiler(log_dir / "profile", args.logging.profile_steps if first else ()),
        save_path=save_path,
        speed=_speed(args, models.work, updater),
        record=record,
        parity=parity.gate,
        shown=args.logging.num_trajectories_to_save if args.logging.save_trajectories else 0,
        read=inputs.encoder.vision.read if inputs.encoder.vision else None,
    )
    if args.checkpoint.load_checkpoint:
        with PULSE.during("resume"):
            trainer.resume(lambda before: changes_told(before, record, partial(cannot_matter, args)))
    with together(everyone):
        if first:
            write_record(record, log_dir, save_path, fresh=not progress.step)
            trainer.loggers = make_loggers(args, inputs, console, progress)
    return trainer


def _speed(args: Args, work: Work | None, updater: Updater) -> Speed:
    epochs, sharing = args.training.max_epochs, args.distributed.sp_size
    return Speed(work, epochs, device_peak(), sharing, skips=lambda: updater.loss.skips_rows_without_advantage)
