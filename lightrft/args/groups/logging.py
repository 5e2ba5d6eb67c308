from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

from lightrft.args.field import Witness, arg


@dataclass(frozen=True, kw_only=True)
class LoggingArgs:
    """Logging"""

    log_dir: str = arg(
        None,
        "Folder of metrics.jsonl, run.json and plots.",
        derive=lambda values: str(PurePath(values["save_path"]) / "logs"),
        unset="<save_path>/logs",
        witness=Witness("--log_dir {save_path}/elsewhere", "files"),
        path=True,
    )
    plot_every: int = arg(
        10, "Draw the plots every so many steps; 0 = never.", ge=0, witness=Witness("--plot_every 1", "files")
    )
    use_tensorboard: str | None = arg(
        None,
        "Folder for TensorBoard's event files.",
        unset="no TensorBoard",
        witness=Witness("--use_tensorboard {save_path}/tensorboard", "files"),
        path=True,
    )
    use_wandb: str | None = arg(
        None,
        "Weights & Biases project; the key comes from WANDB_API_KEY, or WANDB_MODE=offline.",
        unset="no W&B",
        witness=Witness("--use_wandb project", "files"),
    )
    wandb_org: str | None = arg(
        None,
        "W&B organisation or user.",
        unset="the key's own",
        witness=Witness("--wandb_org team", "wandb", given="--use_wandb project"),
    )
    wandb_run_name: str | None = arg(
        None,
        "Name of the W&B run.",
        unset="the name of the --save_path folder",
        witness=Witness("--wandb_run_name first", "wandb", given="--use_wandb project"),
    )
    save_trajectories: bool = arg(
        False,
        "Write prompts, images, responses, rewards, advantages and log-probabilities of each step below --log_dir; "
        "TensorBoard and W&B show them too.",
        witness=Witness("--save_trajectories", "files"),
    )
    num_trajectories_to_save: int = arg(
        10,
        "Samples of a step to write and show.",
        ge=1,
        witness=Witness("--num_trajectories_to_save 1", "trajectories", given="--save_trajectories"),
    )
    profile_steps: tuple[int, ...] = arg(
        (),
        "Steps to run under torch's profiler; traces and tables go below --log_dir.",
        ge=1,
        unset="none",
        witness=Witness("--profile_steps 2", "files"),
    )
    logging_steps: int = arg(
        1,
        "Print a line every so many steps.",
        ge=1,
        witness=Witness("--logging_steps 2", "output", given="--no-quiet"),
    )
    quiet: bool = arg(
        False,
        "Print neither plan, steps nor end of the run; notices and warnings stay.",
        witness=Witness("--no-quiet", "output"),
    )
