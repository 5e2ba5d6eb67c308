"""All parts joined: arguments to a trainer that is ready to run."""

from __future__ import annotations

from pathlib import Path

import torch

from lightrft.algorithms.estimator import load_estimator
from lightrft.args import Args
from lightrft.build.rollouts import make_rollouts, seed_everything
from lightrft.build.tracking import make_loggers, run_record
from lightrft.build.update import (
    make_advantages,
    make_critic,
    make_scorer,
    make_strategy,
    make_token_model,
    make_updater,
)
from lightrft.hardware import DTYPES, choose_precision
from lightrft.held_out import Evaluations
from lightrft.loop.checkpoint_folder import CheckpointFolder
from lightrft.loop.checkpointing import Checkpointer
from lightrft.loop.due import Due
from lightrft.loop.placement import Placement
from lightrft.loop.progress import Progress
from lightrft.models.critic import critic_args, given_critic
from lightrft.models.given import dtype_to_train, read_given
from lightrft.models.load import load_model
from lightrft.preflight import Inputs
from lightrft.ranks.launch import join_world
from lightrft.recipe import frozen_steps, kl_term, optim_args, total_steps
from lightrft.strategy.base import Handle, Strategy
from lightrft.sync.weights import WeightSync
from lightrft.track.base import Loggers
from lightrft.track.clock import Clock
from lightrft.track.console import Console
from lightrft.track.profiler import Profiler
from lightrft.track.run_record import write_record
from lightrft.trainer import Trainer
from lightrft.update.critic import Critic

STRUCTURE = ("fsdp", "zero_stage", "optimizer")  # what the tensors of a checkpoint depend on


def make_checkpointer(args: Args, strategy: Strategy, policy: Handle, critic: Critic | None) -> Checkpointer:
    c = args.checkpoint
    given = {"policy": read_given(args.model), **({"critic": given_critic(args.model)} if critic else {})}
    folder = CheckpointFolder(Path(c.ckpt_path), c.max_ckpt_num, c.max_ckpt_mem)
    structure = {flag: args.value(flag) for flag in (*STRUCTURE, *(["value_head_prefix"] if critic else []))}
    return Checkpointer(
        folder,
        strategy,
        policy,
        given,
        critic=critic.model.handle if critic else None,
        with_hf=c.save_hf_ckpt,
        structure=structure,
    )


def build_trainer(args: Args, inputs: Inputs) -> Trainer:
    """Loads the model, prepares it, and joins all parts; on `--load_checkpoint` goes on from the newest checkpoint."""
    seed_everything(args.training.seed)
    world, (precision, _) = join_world(), choose_precision(args)
    strategy = make_strategy(args, world, precision)
    estimator = load_estimator(args.algorithm.advantage_estimator)
    dtype = torch.float32 if args.distributed.fsdp else DTYPES[precision.compute]
    steps = total_steps(args, len(inputs.prompts))
    learning = max(steps - frozen_steps(args, estimator), 0)
    model = load_model(args.model, dtype_to_train(args.model, dtype), world.device, trains=True)
    policy = make_token_model(args, strategy, model, optim_args(args, learning))
    critic = make_critic(args, strategy, estimator, dtype_to_train(critic_args(args.model), dtype), steps)
    reference = None
    kl = kl_term(args)
    if kl.needs_reference:
        frozen = load_model(args.model, dtype, world.device, trains=False)
        reference = make_token_model(args, strategy, frozen, None)
    rollouts = make_rollouts(args, inputs, lambda: strategy.gathered(policy.handle))
    progress = Progress(steps)
    console = Console(steps, args.logging.logging_steps, quiet=args.logging.quiet)
    if rollouts.engine.equal_lengths:
        console.unless_quiet(
            "notice: padding changes what this model computes; only prompts of one length share a batch"
        )
    clock, placement = (
        Clock(console.phase),
        Placement(rollouts.engine, WeightSync(strategy, policy.handle, rollouts.engine)),
    )
    record = run_record(args, model, inputs.tokenizer)
    trainer = Trainer(
        ranks=strategy.ranks,
        prompts=rollouts.prompts,
        collector=rollouts.collector,
        scorer=make_scorer(args, strategy, policy, reference, kl, critic),
        advantages=make_advantages(args, strategy.ranks, estimator, kl),
        updater=make_updater(args, strategy, policy, estimator, kl, critic),
        placement=placement,
        evaluations=Evaluations(rollouts.evaluator, args.evaluation.eval_steps, placement, progress, clock, console),
        checkpointer=make_checkpointer(args, strategy, policy.handle, critic),
        due=Due(args.checkpoint.save_steps, args.checkpoint.save_interval),
        progress=progress,
        loggers=Loggers(),
        console=console,
        clock=clock,
        profiler=Profiler(Path(args.logging.log_dir) / "profile", args.logging.profile_steps),
        save_path=Path(args.checkpoint.save_path),
        record=record,
    )
    if args.checkpoint.load_checkpoint:
        trainer.resume()
    folders = Path(args.logging.log_dir), Path(args.checkpoint.save_path)
    write_record(record, *folders, fresh=not progress.step)
    trainer.loggers = make_loggers(args, inputs, console, progress)
    return trainer
