"""The only file that names concrete classes: arguments to a trainer that is ready to run."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lightrft.algorithms.estimator import Estimator, load_estimator
from lightrft.args import Args, optimizer_steps, prompts_per_step
from lightrft.args.presets import preset_file
from lightrft.args.show import as_dict
from lightrft.checkpointing import Checkpointer, Due
from lightrft.errors import Refused
from lightrft.evaluation import Evaluator
from lightrft.models.load import end_token_ids, load_model
from lightrft.models.packing import Cost, can_share_prompts
from lightrft.plan import choose_precision, kl_in_loss, runtime, total_steps
from lightrft.preflight import Inputs
from lightrft.prompts.sampler import PromptSampler
from lightrft.rollouts.collector import Collector, RolloutMaker
from lightrft.rollouts.engines.base import Sampling
from lightrft.rollouts.engines.local import LocalEngine
from lightrft.strategy.base import Handle, OptimArgs, Precision, Strategy, World
from lightrft.strategy.checkpoint import CheckpointFolder
from lightrft.strategy.launch import join_world
from lightrft.sync.weights import WeightSync
from lightrft.track.base import Loggers
from lightrft.track.clock import Clock
from lightrft.track.console import Console
from lightrft.track.metrics_file import MetricsFile
from lightrft.track.plots import Plots
from lightrft.track.profiler import Profiler
from lightrft.track.run_record import make_record, write_json
from lightrft.track.tensorboard import TensorBoard
from lightrft.track.trajectories import Trajectories
from lightrft.track.wandb import WandB
from lightrft.trainer import Progress, Trainer
from lightrft.update.score import Scorer
from lightrft.update.step import Updater, UpdateSettings

STRUCTURE = ("fsdp", "zero_stage", "optimizer")  # what the tensors of a checkpoint depend on
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def optim_args(args: Args, steps: int) -> OptimArgs:
    training, total = args.training, steps * optimizer_steps(args)
    warmup = training.lr_warmup_steps
    return OptimArgs(
        name=training.optimizer,
        learning_rate=training.actor_learning_rate,
        betas=training.adam_betas,
        epsilon=training.adam_epsilon,
        weight_decay=training.l2,
        max_norm=training.max_norm,
        scheduler=training.lr_scheduler,
        warmup_steps=math.ceil(training.lr_warmup_ratio * total) if warmup is None else warmup,
        total_steps=total,
    )


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
    args: Args, inputs: Inputs, borrow: Callable[[], AbstractContextManager[PreTrainedModel]], model: PreTrainedModel
) -> Sampler:
    ends = end_token_ids(model, inputs.tokenizer)
    engine = partial(LocalEngine, borrow, inputs.tokenizer, ends)
    train, held_out = (
        engine(args.batch.micro_rollout_batch_size),
        engine(args.evaluation.eval_batch_size, label="eval_"),
    )
    s = args.sampling
    sampling = Sampling(args.model.max_new_tokens, s.temperature, s.top_p, s.top_k, s.min_p, tuple(s.stop))
    collector = Collector(
        RolloutMaker(train, inputs.rewards, inputs.tokenizer, args.training.seed),
        sampling,
        n_samples=args.algorithm.n_samples_per_prompt,
        rollout_batch_size=args.batch.rollout_batch_size,
        prompts_per_step=prompts_per_step(args),
    )
    if not inputs.eval_prompts:
        return Sampler(collector, None, [train])
    plain = Sampling(args.model.max_new_tokens, args.evaluation.eval_temperature, stop=tuple(s.stop))
    maker = RolloutMaker(held_out, inputs.rewards, inputs.tokenizer, args.training.seed)
    return Sampler(collector, Evaluator(maker, inputs.eval_prompts, plain, inputs.rewards.primary), [train, held_out])


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


def make_updater(args: Args, strategy: Strategy, policy: Handle, estimator: Estimator) -> Updater:
    settings = UpdateSettings(
        algorithm=args.algorithm,
        batch=args.batch,
        aggregation=args.algorithm.loss_agg_mode or estimator.aggregation,
        kl_coef=kl_in_loss(args, estimator),
        max_epochs=args.training.max_epochs,
        max_new_tokens=args.model.max_new_tokens,
        seed=args.training.seed,
        sharing=share_prompts(args, policy.model),
    )
    return Updater(strategy, policy, estimator, settings)


def share_prompts(args: Args, model: PreTrainedModel) -> Cost | None:
    """The costs to weigh where prompts may be shared, else None."""
    possible = can_share_prompts(model)
    if args.memory.share_prompts and not possible:
        raise Refused(
            "--share_prompts needs a model with rotary positions and full attention through sdpa in every layer, which "
            f"--pretrain {args.model.pretrain} is not; leave it out"
        )
    return Cost.of(model) if possible and args.memory.share_prompts is not False else None


def make_scorer(args: Args, strategy: Strategy, policy: Handle, reference: Handle | None) -> Scorer:
    return Scorer(
        strategy,
        policy,
        reference,
        temperature=args.sampling.temperature,
        rows=args.batch.micro_rollout_batch_size * args.algorithm.n_samples_per_prompt,
        on_policy=optimizer_steps(args) == 1,
        sharing=share_prompts(args, policy.model),
    )


def make_checkpointer(args: Args, strategy: Strategy, policy: Handle, inputs: Inputs) -> Checkpointer:
    c = args.checkpoint
    folder = CheckpointFolder(Path(c.ckpt_path), c.max_ckpt_num, c.max_ckpt_mem)
    structure = {flag: args.value(flag) for flag in STRUCTURE}
    return Checkpointer(folder, strategy, policy, inputs.tokenizer, with_hf=c.save_hf_ckpt, structure=structure)


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
    policy = strategy.prepare(load_model(args.model, dtype, world.device), optim_args(args, steps))
    reference = None
    if kl_in_loss(args, estimator) > 0:
        reference = strategy.prepare(load_model(args.model, dtype, world.device), None)
    samplers = make_samplers(args, inputs, lambda: strategy.gathered(policy), policy.model)
    progress = Progress(steps)
    console = Console(steps, args.logging.logging_steps, quiet=args.logging.quiet)
    record = run_record(args, policy.model, inputs.tokenizer)
    trainer = Trainer(
        prompts=PromptSampler(inputs.prompts, args.training.seed, args.data.prompt_data_probs),
        collector=samplers.collector,
        scorer=make_scorer(args, strategy, policy, reference),
        estimator=estimator,
        algorithm=args.algorithm,
        updater=make_updater(args, strategy, policy, estimator),
        sync=WeightSync(strategy, samplers.engines),
        policy=policy,
        evaluator=samplers.evaluator,
        eval_steps=args.evaluation.eval_steps,
        checkpointer=make_checkpointer(args, strategy, policy, inputs),
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
    write_record(args, record)
    trainer.loggers = make_loggers(args, inputs, console, progress)
    return trainer


def run_record(args: Args, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """What run.json holds."""
    rewards = (entry.rsplit(":", 1)[0] for entry in args.rewards.reward_fn if ":" in entry)
    preset = [str(preset_file(args.run.mode))] if args.run.mode else []
    files = [*args.run.config, *preset, *rewards, *args.data.prompt_data, *args.evaluation.eval_data]
    loaded = {"attn_implementation": model.config._attn_implementation, "tokenizer": type(tokenizer).__name__}
    return make_record(as_dict(args), files, {**runtime(args), **loaded})


def write_record(args: Args, record: dict[str, Any]) -> None:
    """The first thing that a run writes, when nothing can be refused any more."""
    folder = Path(args.logging.log_dir)
    for path in (folder, Path(args.checkpoint.save_path)):
        path.mkdir(parents=True, exist_ok=True)
    write_json(folder / "run.json", record)
