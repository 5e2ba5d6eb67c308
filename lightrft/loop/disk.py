"""How much the checkpoints and the final model of a run take on the disk, against what is free there."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lightrft.args import Args
from lightrft.args.conditions import has_adapters, has_critic
from lightrft.loop.origin import origin
from lightrft.models.critic import count_critic
from lightrft.models.given import dtype_to_train, weight_files
from lightrft.models.load import count_adapters, count_frozen, count_parameters

if TYPE_CHECKING:
    import torch

GB, MB = 1e9, 1e6


@dataclass(frozen=True)
class Need:
    """Bytes of one checkpoint and of the final model. At most `most` checkpoints are on the disk at once, with the one
    that is being written. folder: `--ckpt_path`, or where there are no checkpoints `--save_path`. free: bytes on its
    disk."""

    checkpoint: float
    model: float
    most: int
    folder: str
    free: float

    @property
    def total(self) -> float:
        return self.most * self.checkpoint + self.model

    def line(self) -> str:
        model, free = size_text(self.model), size_text(self.free)
        if not self.most:
            return f"no checkpoints; the model takes about {model} in {self.folder}, on whose disk {free} are free"
        whole = f"at most {max(1, self.most - 1)} of about {size_text(self.checkpoint)}"
        unfinished = " and one that is being written" if self.most > 1 else ""
        return f"checkpoints in {self.folder}: {whole}{unfinished}, the model {model}; {free} are free there"

    def shortage(self) -> str | None:
        """A notice where it does not fit, else None."""
        if self.total <= self.free:
            return None
        free = f"{size_text(self.free)} are free at {self.folder}"
        if not self.most:
            return f"the model needs {size_text(self.model)}, and {free}; make room, or choose another --save_path"
        what = f"{self.most} checkpoint{'s' * (self.most != 1)} of about {size_text(self.checkpoint)} and the model"
        remedy = "lower --max_ckpt_num, save less often, or choose another --ckpt_path"
        return f"{what} need {size_text(self.total)}, and {free}; {remedy}"


def size_text(count: float) -> str:
    """Bytes in three digits, or as many as there are before the point; less than a GB in MB."""
    number, unit = (count / GB, "GB") if count >= 0.9995 * GB else (count / MB, "MB")
    return f"{number:.3g} {unit}" if number < 999.5 else f"{number:,.0f} {unit}"


def disk_need(args: Args, steps: int, episode: int, compute: torch.dtype) -> Need:
    """What a run of `steps` steps needs. episode: steps of one pass over the prompts. compute: what
    a pass computes in.

    A checkpoint holds a float32 weight and Adam's two moments of each parameter of policy and critic, once, whatever
    the precision and the strategy; of those that flags freeze a weight alone, as it is held, and beside adapters
    nothing. The final model is as large as the given one, whose dtypes it has; adapters are float32. An average of what
    trains of the policy is in both.
    """
    c, folder, moments = args.checkpoint, origin(args).folder, 8 if args.training.optimizer == "adamw" else 0
    adapters = has_adapters(args.model)
    learning = count_parameters(args.model) + count_adapters(args.model) - count_frozen(args.model)
    frozen = 0 if adapters else count_frozen(args.model)
    trained = learning + (count_critic(args.model) if has_critic(args) else 0)
    model = sum(path.stat().st_size for path in weight_files(args.model))
    model = 4 * learning + args.model.lora_merge * model if adapters else model
    intervals = [c.save_steps, c.save_interval * episode if c.save_interval else None]
    written = sum(steps // every for every in intervals if every)
    most = min(written, c.max_ckpt_num + 1)
    folder = folder if most else Path(c.save_path)
    average = args.training.enable_ema
    model *= 1 + average
    checkpoint = trained * (4 + moments) + (frozen and frozen * _held(args, compute)) + 4 * learning * average
    checkpoint += c.save_hf_ckpt * model
    return Need(checkpoint, model, most, str(folder), free_bytes(folder))


def _held(args: Args, compute: torch.dtype) -> int:
    """Bytes of a weight that does not train: FSDP2's shards are float32, DeepSpeed keeps it as it is given."""
    return 4 if args.distributed.fsdp else dtype_to_train(args.model, compute).itemsize


def free_bytes(folder: Path) -> int:
    """Where the folder is, or would be made."""
    nearest = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    return shutil.disk_usage(nearest).free
