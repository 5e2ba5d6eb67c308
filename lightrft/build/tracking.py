"""What is told and kept of a run: loggers, and run.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from lightrft.args import Args
from lightrft.args.estimators import own_estimator
from lightrft.args.presets import preset_file
from lightrft.args.show import as_dict
from lightrft.loop.progress import Progress
from lightrft.models.content import contents
from lightrft.preflight import Inputs
from lightrft.runtime import runtime
from lightrft.track.base import Loggers
from lightrft.track.console import Console
from lightrft.track.metrics_file import MetricsFile
from lightrft.track.plots import Plots
from lightrft.track.run_record import make_record
from lightrft.track.tensorboard import TensorBoard
from lightrft.track.trajectories import Trajectories
from lightrft.track.wandb import WandB


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
        loggers.add(Trajectories, folder / "trajectories", step, inputs.tokenizer)
    if to.use_wandb:
        name = to.wandb_run_name or Path(args.checkpoint.save_path).absolute().name
        loggers.add(WandB, to, step, name, values, console.unless_quiet)
    return loggers


def run_record(args: Args, model: PreTrainedModel, inputs: Inputs) -> dict[str, Any]:
    """What run.json holds."""
    rewards = (entry.rsplit(":", 1)[0] for entry in args.rewards.reward_fn if ":" in entry)
    preset = [str(preset_file(args.run.mode))] if args.run.mode else []
    own = own_estimator(args.algorithm.advantage_estimator)
    code = [*args.run.config, *preset, *rewards, *([str(own)] if own else [])]
    files = [*code, *args.data.prompt_data, *args.evaluation.eval_data]
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    attention = model.config._attn_implementation
    loaded = {"attn_implementation": attention, "tokenizer": type(inputs.tokenizer).__name__, "gpus": gpus}
    about = runtime(args, videos=inputs.have_videos, takes_segments=inputs.takes_segments)
    return make_record(as_dict(args), files, {**about, **loaded}, contents(args.model))
