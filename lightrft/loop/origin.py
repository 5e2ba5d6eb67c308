"""Where a run keeps its checkpoints, and where it begins: `--ckpt_path` names a folder of checkpoints, or one of them.

One of the run's own (it lies in `--save_path`, or was made by a run with that): the run goes back to it, and new ones
go beside it. One of another run: a new run branches off there, and has its own in `<save_path>/checkpoints`.
A checkpoint notes from which one its run began, so the same command, called again, goes on with what it has done.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from lightrft.args import Args
from lightrft.errors import Refused
from lightrft.loop.checkpoint_folder import NAME, CheckpointFolder

BEGAN = "began_at"  # in state.json: the checkpoint from which the run was told to begin, if it was


@dataclass(frozen=True)
class Origin:
    """folder: of the run's checkpoints. start: the one that `--ckpt_path` names, if it does."""

    folder: Path
    start: Path | None = None

    @property
    def mark(self) -> str | None:
        """Of the run's own the name, which stays where the run is moved; else the path."""
        if self.start is None or _is_same(self.folder, self.start.parent):
            return self.start and self.start.name
        return os.path.realpath(self.start)

    def candidates(self, found: list[tuple[int, Path]]) -> list[tuple[int, Path]]:
        """Of the checkpoints in the folder, those to go on from; then the start."""
        if self.start is None:
            return found
        own = [(step, path) for step, path in found if began_at(path) in (self.mark, None)]
        step = int(self.start.name.removeprefix("step_"))
        return [*(each for each in own if each[0] > step), (step, self.start)]


def began_at(path: Path) -> str | None:
    """What a checkpoint notes, "" for one that began fresh; None where it cannot be read, which loading will say."""
    try:
        return json.loads((path / "state.json").read_text())[BEGAN] or ""
    except (OSError, ValueError, KeyError, TypeError):
        return None


def names_one(path: Path) -> bool:
    return NAME.fullmatch(path.name) is not None


def origin(args: Args) -> Origin:
    path, save_path = Path(args.checkpoint.ckpt_path), Path(args.checkpoint.save_path)
    if not names_one(path):
        return Origin(path)
    return Origin(path.parent if _is_own(path, save_path) else save_path / "checkpoints", path)


def _is_same(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _is_own(path: Path, save_path: Path) -> bool:
    ours = os.path.realpath(save_path)
    if Path(ours) in Path(os.path.realpath(path)).parents:
        return True
    try:
        arguments = json.loads((path / "state.json").read_text())["record"]["arguments"]
        return os.path.realpath(arguments["save_path"]["value"]) == ours
    except (OSError, ValueError, KeyError, TypeError):
        return False


def check_origin(args: Args) -> None:
    """Raises `Refused` where `--ckpt_path` names a checkpoint that a run cannot begin from."""
    found = origin(args)
    if found.start is None:
        return
    given = f"--ckpt_path {found.start}"
    if not args.checkpoint.load_checkpoint:
        remedy = f"add --load_checkpoint to go on from it, or name the folder of checkpoints, {found.start.parent}"
        raise Refused(f"{given} names one checkpoint; {remedy}")
    there = CheckpointFolder(found.folder, 1, 1).newest_first()
    branches = not _is_same(found.folder, found.start.parent)
    others = [path for _, path in there if branches and began_at(path) not in (found.mark, None)]
    if others:
        remedy = "choose another --save_path, or go on with that run without --ckpt_path"
        taken = f"--save_path {args.checkpoint.save_path} holds a run that did not begin there"
        raise Refused(f"{given}: {taken}; {remedy}")
    if not found.start.exists() and len(found.candidates(there)) == 1:
        beside = [path.name for _, path in CheckpointFolder(found.start.parent, 1, 1).newest_first()]
        raise Refused(f"{given}: there is no such checkpoint, but {', '.join(beside) or 'none at all'}")
