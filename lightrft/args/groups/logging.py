from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from lightrft.args.field import Witness, arg

if TYPE_CHECKING:
    from lightrft.args.surface import Args


def _logs_folder(args: Args) -> str:
    return str(PurePath(args.checkpoint.save_path) / "logs")


def _is_quiet(args: Args) -> str | None:
    return "--quiet prints no line per step" if args.logging.quiet else None


@dataclass(frozen=True, kw_only=True)
class LoggingArgs:
    """Logging"""

    log_dir: str = arg(
        None,
        "Folder of metrics.jsonl, run.json and plots.",
        derive=_logs_folder,
        unset="<save_path>/logs",
        witness=Witness("--log_dir {save_path}/elsewhere", "files"),
    )
    plot_every: int = arg(
        10, "Draw the plots every so many steps; 0 = never.", ge=0, witness=Witness("--plot_every 1", "files")
    )
    use_tensorboard: str | None = arg(
        None,
        "Folder for TensorBoard's event files.",
        unset="no TensorBoard",
        witness=Witness("--use_tensorboard {save_path}/tensorboard", "files"),
    )
    logging_steps: int = arg(
        1,
        "Print a line every so many steps.",
        ge=1,
        matters=_is_quiet,
        witness=Witness("--logging_steps 2", "output", given="--no-quiet"),
    )
    quiet: bool = arg(False, "Print no line per step.", witness=Witness("--no-quiet", "output"))
