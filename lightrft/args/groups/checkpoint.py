from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

from lightrft.args.field import Witness, arg

OFTEN = "--save_steps 1"


@dataclass(frozen=True, kw_only=True)
class CheckpointArgs:
    """Checkpoint"""

    save_path: str = arg(
        None,
        "The run's folder; the final model, summary.json and, by default, logs and checkpoints.",
        required=True,
        witness=Witness("--save_path {save_path}/elsewhere", "files"),
        path=True,
    )
    ckpt_path: str = arg(
        None,
        "Folder that checkpoints are written to and read from; with --load_checkpoint also one step_ folder in one: "
        "a run goes back to its own, or branches off another's, with checkpoints in <save_path>/checkpoints.",
        derive=lambda values: str(PurePath(values["save_path"]) / "checkpoints"),
        unset="<save_path>/checkpoints",
        witness=Witness("--ckpt_path {save_path}/elsewhere", "files", given=OFTEN),
        path=True,
    )
    load_checkpoint: bool = arg(
        False,
        "Resume from the newest whole checkpoint; start fresh where there is none.",
        witness=Witness("--load_checkpoint", "output", given="--no-quiet"),
    )
    save_interval: int = arg(
        1,
        "Save a checkpoint every so many episodes; 0 = never.",
        ge=0,
        witness=Witness("--save_interval 0", "files", without="--max_steps"),
    )
    save_steps: int | None = arg(
        None,
        "Save a checkpoint every so many steps as well.",
        ge=1,
        unset="by episodes only",
        witness=Witness("--save_steps 1", "files"),
    )
    max_ckpt_num: int = arg(3, "Checkpoints to keep.", ge=1, witness=Witness("--max_ckpt_num 1", "files", given=OFTEN))
    max_ckpt_mem: int = arg(
        1000,
        "Gigabytes of checkpoints to keep; the newest always stays.",
        ge=0,
        witness=Witness("--max_ckpt_mem 0", "files", given=OFTEN),
    )
    save_hf_ckpt: bool = arg(
        False,
        "With every checkpoint, also save the model for from_pretrained, in its folder hf; both go together.",
        witness=Witness("--save_hf_ckpt", "files", given=OFTEN),
    )
