"""The only file that names concrete classes: arguments to a trainer that is ready to run."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lightrft.algorithms.control import TemperatureSchedule
from lightrft.algorithms.estimator import Estimator, load_estimator
from lightrft.args import Args
from lightrft.args.estimators import own_estimator
from lightrft.args.presets import preset_file
from lightrft.args.show import as_dict
from lightrft.checkpointing import Checkpointer, Due
from lightrft.errors import Refused
from lightrft.evaluation import Evaluator
from lightrft.models.critic import critic_args, given_critic, load_critic
from lightrft.models.given import dtype_to_train, read_given
from lightrft.models.load import load_model
from lightrft.models.packing import Cost, can_share_prompts
from lightrft.models.suitable import end_token_ids
from lightrft.plan import choose_precision, runtime, total_steps
from lightrft.preflight import Inputs
from lightrft.progress import Progress
from lightrft.prompts.sampler import PromptSampler
from lightrft.recipe import (
    advantage_settings,
    aggregation,
    collect_settings,
    eval_sampling,
    frozen_steps,
    kl_term,
    needs_entropy,
    needs_old_logprobs,
    optim_args,
    sampling,
    shaping_settings,
    temperature_schedule,
)
from lightrft.rollouts.collector import Collector, RolloutMaker
from lightrft.rollouts.engines.local import LocalEngine
from lightrft.rollouts.engines.probe import needs_equal_lengths
from lightrft.strategy.base import Handle, Precision, Strategy, World
from lightrft.strategy.checkpoint import CheckpointFolder
from lightrft.strategy.launch import join_world
from lightrft.sync.weights import WeightSync
from lightrft.track.base import Loggers
from lightrft.track.clock import Clock
from lightrft.track.console import Console
from lightrft.track.metrics_file import MetricsFile
from lightrft.track.plots import Plots
from lightrft.track.profiler import Profiler
from lightrft.track.run_record import make_record, write_record
from lightrft.track.tensorboard import TensorBoard
from lightrft.track.trajectories import Trajectories
from lightrft.track.wandb import WandB
from lightrft.trainer import Trainer
from lightrft.update.advantages import AdvantageStage
from lightrft.update.critic import Critic
from lightrft.update.kl import KLTerm
from lightrft.update.score import Scorer
from lightrft.update.step import Updater, UpdateSettings

STRUCTURE = ("fsdp", "zero_stage", "optimizer")  # what the tensors of a checkpoint depend on
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def make_strategy(args: Args, world: World, precision: Precision) -> Strategy:
    if args.distributed.fsdp:
        from lightrft.strategy.fsdp2 import FSDP2Strategy

        return FSDP2Strategy(world, precision, cpu_offload=args.distributed.fsdp_cpu_offload)
    from lightrft.strategy.deepspeed import DeepSpeedStrategy

    return DeepSpeedStrategy(world, precision, args.distributed.zero_stage)


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


def make_loggers(args: Args, inputs: Inputs, console: Console, progress: Progress) -> Loggers:
    """Those that the flags ask for. One that cannot be made is reported and left out."""
    to, folder, step = args.logging, Path(args.logging.log_dir), progress.step
    metrics, values = folder / "metrics.jsonl", {flag: entry["value"] for flag, entry in as_dict(args).items()}
    loggers = Loggers()
    loggers.add(MetricsFile, metrics, step)
    loggers.add(lambda: console)
    if to.use_tensorboard:
        loggers.add(TensorBoard, Path(to.use_tensorboard), step, values)
    if to.plot_every:
        loggers.add(Plots, folder / "plots", step, metrics, to.plot_every, lambda: progress.eval_before)
    if to.save_trajectories:
        loggers.add(Trajectories, folder / "trajectories", step, to.num_trajectories_to_save, inputs.tokenizer)
    if to.use_wandb:
        name = to.wandb_run_name or Path(args.checkpoint.save_path).absolute().name
        loggers.add(WandB, to, step, name, values, console.tell)
    return loggers


def make_advantages(args: Args, strategy: Strategy, estimator: Estimator, kl: KLTerm) -> AdvantageStage:
    return AdvantageStage(strategy, estimator, kl, shaping_settings(args), advantage_settings(args, estimator))


def make_critic(args: Args, strategy: Strategy, estimator: Estimator, dtype: torch.dtype, steps: int) -> Critic | None:
    """A model and an optimizer of its own, for the estimators that need one."""
    if "critic" not in estimator.needs:
        return None
    model = load_critic(args.model, dtype, strategy.world.device)
    sharing = share_prompts(args, model.backbone)
    optim = replace(optim_args(args, steps), learning_rate=args.training.critic_learning_rate)
    return Critic(
        strategy,
        strategy.prepare(cast(PreTrainedModel, model), optim),
        aggregation=aggregation(args, estimator),
        clip=args.algorithm.value_clip,
        rows=args.batch.micro_rollout_batch_size * args.algorithm.n_samples_per_prompt,
        sharing=sharing,
    )


def make_updater(
    args: Args, strategy: Strategy, policy: Handle, estimator: Estimator, kl: KLTerm, critic: Critic | None = None
) -> Updater:
    settings = UpdateSettings(
        algorithm=args.algorithm,
        batch=args.batch,
        aggregation=aggregation(args, estimator),
        max_epochs=args.training.max_epochs,
        max_new_tokens=args.model.max_new_tokens,
        seed=args.training.seed,
        sharing=share_prompts(args, policy.model),
        frozen_steps=frozen_steps(args, estimator),
        fire=args.sampling.use_fire,
    )
    return Updater(strategy, policy, estimator, kl, settings, critic)


def share_prompts(args: Args, model: PreTrainedModel) -> Cost | None:
    """The costs to weigh where prompts may be shared, else None."""
    possible = can_share_prompts(model)
    if args.memory.share_prompts and not possible:
        raise Refused(
            "--share_prompts needs a model with rotary positions and full attention through sdpa in every layer, which "
            f"--pretrain {args.model.pretrain} is not; leave it out"
        )
    return Cost.of(model) if possible and args.memory.share_prompts is not False else None


def make_scorer(
    args: Args,
    strategy: Strategy,
    policy: Handle,
    reference: Handle | None,
    kl: KLTerm,
    critic: Critic | None = None,
) -> Scorer:
    return Scorer(
        strategy,
        policy,
        reference,
        critic,
        rows=args.batch.micro_rollout_batch_size * args.algorithm.n_samples_per_prompt,
        on_policy=not needs_old_logprobs(args, kl),
        with_entropy=needs_entropy(args),
        sharing=share_prompts(args, policy.model),
    )


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
        critic=critic.handle if critic else None,
        with_hf=c.save_hf_ckpt,
        structure=structure,
    )


def seed_everything(seed: int) -> None:
    """For users' reward functions; our own randomness is counter-based."""
    random.seed(seed)
    np.random.seed(seed % (1 << 32))
    torch.manual_seed(seed)


def build_trainer(args: Args, inputs: Inputs) -> Trainer:
    """Loads the model, prepares it, and joins all parts; on `--load_checkpoint` goes on from the newest checkpoint."""
    seed_everything(args.training.seed)
    world, (precision, _) = join_world(), choose_precision(args)
    strategy = make_strategy(args, world, precision)
    estimator = load_estimator(args.algorithm.advantage_estimator)
    dtype = torch.float32 if args.distributed.fsdp else DTYPES[precision.compute]
    steps = total_steps(args, len(inputs.prompts))
    learning = max(steps - frozen_steps(args, estimator), 0)
    model = load_model(args.model, dtype_to_train(args.model, dtype), world.device)
    policy = strategy.prepare(model, optim_args(args, learning))
    critic = make_critic(args, strategy, estimator, dtype_to_train(critic_args(args.model), dtype), steps)
    reference = None
    kl = kl_term(args)
    if kl.needs_reference:
        reference = strategy.prepare(load_model(args.model, dtype, world.device), None)
    schedule = temperature_schedule(args, steps)
    samplers = make_samplers(args, inputs, lambda: strategy.gathered(policy), policy.model, schedule)
    progress = Progress(steps)
    console = Console(steps, args.logging.logging_steps, quiet=args.logging.quiet)
    if samplers.engines[0].equal_lengths:
        console.tell("notice: padding changes what this model computes; only prompts of one length share a batch")
    record = run_record(args, policy.model, inputs.tokenizer)
    trainer = Trainer(
        prompts=PromptSampler(inputs.prompts, args.training.seed, args.data.prompt_data_probs),
        collector=samplers.collector,
        scorer=make_scorer(args, strategy, policy, reference, kl, critic),
        advantages=make_advantages(args, strategy, estimator, kl),
        updater=make_updater(args, strategy, policy, estimator, kl, critic),
        sync=WeightSync(strategy, samplers.engines),
        policy=policy,
        evaluator=samplers.evaluator,
        eval_steps=args.evaluation.eval_steps,
        checkpointer=make_checkpointer(args, strategy, policy, critic),
        due=Due(args.checkpoint.save_steps, args.checkpoint.save_interval),
        progress=progress,
        loggers=Loggers(),
        console=console,
        clock=Clock(console.phase),
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


def run_record(args: Args, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """What run.json holds."""
    rewards = (entry.rsplit(":", 1)[0] for entry in args.rewards.reward_fn if ":" in entry)
    preset = [str(preset_file(args.run.mode))] if args.run.mode else []
    own = own_estimator(args.algorithm.advantage_estimator)
    code = [*args.run.config, *preset, *rewards, *([str(own)] if own else [])]
    files = [*code, *args.data.prompt_data, *args.evaluation.eval_data]
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    attention = model.config._attn_implementation
    loaded = {"attn_implementation": attention, "tokenizer": type(tokenizer).__name__, "gpus": gpus}
    return make_record(as_dict(args), files, {**runtime(args), **loaded})
