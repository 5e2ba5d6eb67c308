"""The folders that a run writes into: whether it can, and whether it may. Nothing that is made here stays.

A run that starts fresh may write into folders that hold no model, no run, and nothing that others have written. One
that goes on may write into its own. No run writes into the folder of a model or of a data set.
"""

from __future__ import annotations

import errno
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lightrft.args import Args
from lightrft.errors import Refused
from lightrft.loop import lock
from lightrft.loop.checkpoint_folder import CheckpointFolder
from lightrft.loop.origin import check_origin, names_one, origin

FLAGS = ("save_path", "ckpt_path", "log_dir", "use_tensorboard")
READ = ("pretrain", "lora_path", "critic_pretrain", "prompt_data", "eval_data")  # folders that a run reads
DEEPEST = 100  # characters that our own files below a folder need
HARMLESS = re.compile(r"\..*|lost\+found|.*\.(log|out|err)")  # files of the system, and where a shell sends our output
OF_A_MODEL = re.compile(
    r"(adapter_)?config\.json|.*\.(safetensors|bin|pt|pth|gguf)|.*\.index\.json|tokenizer.*|critic|ema|merged"
)
OF_A_RUN = re.compile(r"summary\.json|run\.json|metrics\.jsonl|step_\d{6,}|events\.out\.tfevents\..*")
OF_A_START = {  # by flag: what a run leaves that ended before its first checkpoint
    "save_path": re.compile(r"\.export\.tmp"),
    "ckpt_path": re.compile(r"latest|\.step_\d{6,}\.(tmp|old)"),
    "log_dir": re.compile(r"(run\.json|metrics\.jsonl)(\.old\d*)?|wandb(_id)?|plots|trajectories|profile"),
    "use_tensorboard": re.compile(r"events\.out\.tfevents\..*"),
}


def folders_of(args: Args) -> dict[str, Path]:
    """Those that a run writes into, by the flag that names each."""
    given = {flag: Path(args.value(flag)) for flag in FLAGS if args.value(flag) is not None}
    return {**given, "ckpt_path": origin(args).folder}


def check_folders(args: Args) -> None:
    """Raises `Refused`, naming the flag, the path and what would work."""
    folders = folders_of(args)
    for flag, path in folders.items():
        check_writable(flag, path)
        _check_not_read(args, flag, _real(path))
    lock.check_unused(folders)
    check_origin(args)
    checkpoints = CheckpointFolder(folders["ckpt_path"], 1, 1).newest_first()
    resuming = bool(checkpoints) and args.checkpoint.load_checkpoint
    own = _own(args, folders, [path for _, path in checkpoints]) if resuming else set()
    if _real(folders["save_path"]) not in own and own.intersection(_real(folders["ckpt_path"]).parents):
        raise Refused(_of_another_run(args, checkpoints[0][1]))
    taken = {_real(path) for path in folders.values()}
    only_started = _only_started(args, folders["log_dir"])
    for flag, path in folders.items():
        folder = _real(path)
        if folder in own or own.intersection(folder.parents):
            continue
        flags = [other for other, other_path in folders.items() if _real(other_path) == folder]
        ours = [OF_A_START[other] for other in flags] if only_started else []
        foreign = next(_foreign_entries(folder, taken, ours), None)
        if foreign is not None:
            shown = path / foreign.relative_to(folder) if foreign.is_relative_to(folder) else foreign
            raise Refused(_refusal(args, flag, shown, resuming))


def check_writable(flag: str, path: Path) -> None:
    """Raises `Refused` unless the folder can be written to, or made in the nearest folder above it."""
    absolute = path.absolute()
    above = [absolute, *absolute.parents]
    nearest = next(folder for folder in above if _exists(flag, path, folder))
    if not nearest.is_dir():
        raise Refused(f"--{flag} {path}: {nearest} is a file, not a folder; choose another path")
    for mode, use in ((os.W_OK | os.X_OK, "written to"), (os.R_OK, "read")):
        if not os.access(nearest, mode):
            remedy = "choose another path or change its permissions"
            raise Refused(f"--{flag} {path}: {nearest} cannot be {use}; {remedy}")
    _try_to_write(flag, path, nearest)
    longest = os.pathconf(nearest, "PC_NAME_MAX")
    missing = absolute.parts[len(nearest.parts) :]
    too_long = any(len(os.fsencode(name)) > longest for name in missing)
    if too_long or len(os.fsencode(absolute)) + DEEPEST > os.pathconf(nearest, "PC_PATH_MAX"):
        raise Refused(_too_long(flag, path))


def _try_to_write(flag: str, path: Path, nearest: Path) -> None:
    """Some file systems (those of the kernel, a quota that is used up, a server that knows no root) say that one may,
    and then one may not."""
    try:
        os.rmdir(tempfile.mkdtemp(prefix=".trial_", dir=nearest))
    except OSError as error:
        why = f"no folder can be made in {nearest} ({error.strerror})"
        raise Refused(f"--{flag} {path}: {why}; choose another path") from error


def _exists(flag: str, path: Path, folder: Path) -> bool:
    """Whether there is a folder or a file; a link that leads nowhere is refused."""
    try:
        folder.stat()
        return True
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise Refused(_too_long(flag, path)) from error
        if error.errno == errno.EACCES:
            remedy = "choose another path, or change permissions above it"
            raise Refused(f"--{flag} {path}: {folder} cannot be reached; {remedy}") from error
        if folder.is_symlink():
            what = "a link in a circle" if error.errno == errno.ELOOP else f"a broken link to {os.readlink(folder)}"
            remedy = "remove the link, or choose another path"
            raise Refused(f"--{flag} {path}: {folder} is {what}; {remedy}") from error
        return False


def _real(path: Path | str) -> Path:
    """Without links; one that leads nowhere, or in a circle, is taken as it is."""
    return Path(os.path.realpath(path))


def _too_long(flag: str, path: Path) -> str:
    return f"--{flag} {str(path)[:60]}...: a path is too long; give a shorter one"


def _check_not_read(args: Args, flag: str, path: Path) -> None:
    """Refuses a folder that the run reads too: a model in it would be overwritten, data mixed with logs."""
    for source in READ:
        value = args.value(source) or ()
        for name in (value,) if isinstance(value, str) else value:
            folder = Path(name)
            if os.path.isdir(folder) and (_real(folder) == path or _real(folder) in path.parents):
                where = "the same folder as" if _real(folder) == path else "inside"
                wrong = _flag_to_change(args, flag)
                given = f"--{wrong} {args.value(wrong)}"
                raise Refused(f"{given} is {where} --{source} {name}, which is only read; choose another path")


def _own(args: Args, folders: dict[str, Path], checkpoints: list[Path]) -> set[Path]:
    """Folders of the run that goes on: of its checkpoints, and those that its newest checkpoint names."""
    checkpoint_folder, save_path = _real(folders["ckpt_path"]), _real(folders["save_path"])
    own = {checkpoint_folder}
    if save_path in (checkpoint_folder, *checkpoint_folder.parents):
        own.add(save_path)
    for path in checkpoints:
        try:
            arguments = json.loads((path / "state.json").read_text())["record"]["arguments"]
            named = {flag: _real(arguments[flag]["value"]) for flag in FLAGS if arguments[flag]["value"]}
            named["ckpt_path"] = _real(path.parent) if names_one(named["ckpt_path"]) else named["ckpt_path"]
            # Its relative paths start where it was started. That is where we are if they lead to our --ckpt_path.
            return own | set(named.values()) if named["ckpt_path"] in own else own
        except (OSError, ValueError, KeyError, TypeError):
            continue  # damaged; loading will say so
    return own


def _of_another_run(args: Args, newest: Path) -> str:
    """Inside whose --save_path the checkpoints lie: they would be removed, the oldest first, as this run saves its own
    beside them."""
    c = args.checkpoint
    return (
        f"--save_path {c.save_path}: --ckpt_path {c.ckpt_path} lies in the --save_path of another run; go on with that "
        f"one, or branch off from one of its checkpoints with --ckpt_path {newest}"
    )


def _only_started(args: Args, logs: Path) -> bool:
    """Whether a run began in `logs` and left nothing that one can go on from."""
    metrics = logs / "metrics.jsonl"
    has_steps = metrics.is_file() and metrics.stat().st_size > 0
    return (logs / "run.json").is_file() and (args.checkpoint.load_checkpoint or not has_steps)


def _foreign_entries(folder: Path, taken: set[Path], ours: list[re.Pattern[str]]) -> Iterator[Path]:
    """Files and folders in `folder` that this run has not written. taken: the run's folders; ours: its files."""
    for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
        target = _real(entry)
        if target in taken or any(names.fullmatch(entry.name) for names in ours):
            continue
        if any(target in path.parents for path in taken):
            yield from _foreign_entries(target, taken, ours)
        elif not (entry.is_file() and HARMLESS.fullmatch(entry.name)) and not _is_empty(entry):
            yield entry


def _is_empty(entry: Path) -> bool:
    """A folder without any file below it, but what a killed run locked."""
    inside = (inner for inner in entry.rglob("*") if not inner.is_dir() and inner.name != lock.NAME)
    return entry.is_dir() and not entry.is_symlink() and not any(inside)


def _flag_to_change(args: Args, flag: str) -> str:
    """`--save_path`, where the folder follows from it."""
    return flag if args.typed(flag) else "save_path"


def _refusal(args: Args, flag: str, foreign: Path, resuming: bool) -> str:
    name = _flag_to_change(args, flag)
    place = f"--{name} {args.value(name)}"
    if resuming:
        run = f"the run in --ckpt_path {args.checkpoint.ckpt_path}"
        return f"{place} holds what {run} did not write ({foreign}); choose another --{name}"
    is_known = any(names.fullmatch(foreign.name) for names in (OF_A_MODEL, OF_A_RUN, *OF_A_START.values()))
    what = "already holds a run or a model" if is_known else "holds what this run did not write"
    if args.checkpoint.load_checkpoint:
        none = f"and there is no checkpoint in {args.checkpoint.ckpt_path} to go on from"
        return f"{place} {what} ({foreign}), {none}; choose another --{name}, or the --ckpt_path that has some"
    go_on = "go on with a run by --load_checkpoint, or " if is_known else ""
    return f"{place} {what} ({foreign}); {go_on}choose another --{name}"
