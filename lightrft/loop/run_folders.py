"""The folders that a run writes into: whether it can, and whether it may. Nothing is made here.

A run that starts fresh gets folders that hold no model, no run, and nothing that it has not written itself. One that
goes on gets its own. No run writes into a model's or a data set's folder.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from lightrft.args import Args
from lightrft.errors import Refused
from lightrft.loop.checkpoint_folder import CheckpointFolder

FLAGS = ("save_path", "ckpt_path", "log_dir", "use_tensorboard")
READ = ("pretrain", "critic_pretrain", "prompt_data", "eval_data")  # folders that a run reads
DEEPEST = 100  # characters that our own files below a folder need
HARMLESS = re.compile(r"\..*|lost\+found|.*\.(log|out|err)")  # files of the system, and where a shell sends our output
OF_A_MODEL = re.compile(r"config\.json|.*\.(safetensors|bin|pt|pth|gguf)|.*\.index\.json|tokenizer.*|critic")
OF_A_RUN = re.compile(r"summary\.json|run\.json|metrics\.jsonl|step_\d{6,}|events\.out\.tfevents\..*")
OF_A_START = {  # what a run leaves that ended before its first checkpoint, by flag
    "save_path": re.compile(r"(?!)"),
    "ckpt_path": re.compile(r"latest|\.step_\d{6,}\.(tmp|old)"),
    "log_dir": re.compile(r"(run\.json|metrics\.jsonl)(\.old\d*)?|wandb(_id)?|plots|trajectories|profile"),
    "use_tensorboard": re.compile(r"events\.out\.tfevents\..*"),
}


def check_folders(args: Args) -> None:
    """Refused, naming the flag, the path and what would work."""
    folders = {flag: Path(args.value(flag)) for flag in FLAGS if args.value(flag) is not None}
    for flag, path in folders.items():
        check_writable(flag, path)
        _check_apart(args, flag, _real(path))
    checkpoints = CheckpointFolder(folders["ckpt_path"], 1, 1).newest_first()
    resuming = bool(checkpoints) and args.checkpoint.load_checkpoint
    own = _own(args, folders, [path for _, path in checkpoints]) if resuming else set()
    taken = {_real(path) for path in folders.values()}
    for flag, path in folders.items():
        here = _real(path)
        if here in own or own.intersection(here.parents):
            continue
        here_too = [OF_A_START[other] for other, place in folders.items() if _real(place) == here]
        started = here_too if _only_started(args, folders["log_dir"]) else []
        found = next(_foreign(here, taken, started), None)
        if found is not None:
            shown = path / found.relative_to(here) if found.is_relative_to(here) else found
            raise Refused(_refusal(args, flag, shown, resuming))


def check_writable(flag: str, path: Path) -> None:
    """That the folder is there and open to us, or can be made: every folder above it is looked at."""
    absolute = path.absolute()
    above = [absolute, *absolute.parents]
    nearest = next(folder for folder in above if _is_there(flag, path, folder))
    if not nearest.is_dir():
        raise Refused(f"--{flag} {path}: {nearest} is a file, not a folder; choose another path")
    for mode, done in ((os.W_OK | os.X_OK, "written to"), (os.R_OK, "read")):
        if not os.access(nearest, mode):
            remedy = "choose another path or change its permissions"
            raise Refused(f"--{flag} {path}: {nearest} cannot be {done}; {remedy}")
    longest = os.pathconf(nearest, "PC_NAME_MAX")
    made = absolute.parts[len(nearest.parts) :]
    too_long = any(len(os.fsencode(name)) > longest for name in made)
    if too_long or len(os.fsencode(absolute)) + DEEPEST > os.pathconf(nearest, "PC_PATH_MAX"):
        raise Refused(_too_long(flag, path))


def _is_there(flag: str, path: Path, folder: Path) -> bool:
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


def _check_apart(args: Args, flag: str, path: Path) -> None:
    """From the folders that the run reads: a model there would be written over, data mixed with logs."""
    for reads in READ:
        given = args.value(reads) or ()
        for name in (given,) if isinstance(given, str) else given:
            folder = Path(name)
            if os.path.isdir(folder) and (_real(folder) == path or _real(folder) in path.parents):
                where = "the same folder as" if _real(folder) == path else "inside"
                named = _named(args, flag)
                value = args.value(named)
                raise Refused(f"--{named} {value} is {where} --{reads} {name}, which is only read; choose another path")


def _own(args: Args, folders: dict[str, Path], checkpoints: list[Path]) -> set[Path]:
    """Folders of the run that is gone on with: where its checkpoints lie, and what the newest says of it."""
    found = {_real(folders["ckpt_path"])}
    if _real(folders["save_path"]) in [*found, *_real(folders["ckpt_path"]).parents]:
        found.add(_real(folders["save_path"]))
    for path in checkpoints:
        try:
            arguments = json.loads((path / "state.json").read_text())["record"]["arguments"]
            told = {flag: _real(arguments[flag]["value"]) for flag in FLAGS if arguments[flag]["value"]}
            # relative paths are of the folder it was started in: they are ours where its --ckpt_path is
            return found | set(told.values()) if told["ckpt_path"] in found else found
        except (OSError, ValueError, KeyError, TypeError):
            continue  # damaged; loading will say so
    return found


def _only_started(args: Args, logs: Path) -> bool:
    """Whether run.json is there, and no more is lost than steps that nobody can go on from."""
    metrics = logs / "metrics.jsonl"
    no_step = not metrics.is_file() or not metrics.stat().st_size
    return (logs / "run.json").is_file() and (args.checkpoint.load_checkpoint or no_step)


def _foreign(folder: Path, taken: set[Path], started: list[re.Pattern[str]]) -> Iterator[Path]:
    """What stands in the folder and was not written by this run, nor by a start of it that came to nothing."""
    for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
        here = _real(entry)
        if here in taken or any(names.fullmatch(entry.name) for names in started):
            continue
        if any(here in path.parents for path in taken):
            yield from _foreign(here, taken, started)
        elif not (entry.is_file() and HARMLESS.fullmatch(entry.name)) and not _is_empty(entry):
            yield entry


def _is_empty(entry: Path) -> bool:
    """A folder without any file below it."""
    return entry.is_dir() and not entry.is_symlink() and not any(not inner.is_dir() for inner in entry.rglob("*"))


def _named(args: Args, flag: str) -> str:
    """The flag to change: `--save_path`, where the folder follows from it."""
    return flag if args.typed(flag) else "save_path"


def _refusal(args: Args, flag: str, found: Path, resuming: bool) -> str:
    named = _named(args, flag)
    place = f"--{named} {args.value(named)}"
    if resuming:
        run = f"the run in --ckpt_path {args.checkpoint.ckpt_path}"
        return f"{place} holds what {run} did not write ({found}); choose another --{named}"
    known = OF_A_MODEL.fullmatch(found.name) or OF_A_RUN.fullmatch(found.name)
    what = "already holds a run or a model" if known else "holds what this run did not write"
    if args.checkpoint.load_checkpoint:
        none = f"and there is no checkpoint in {args.checkpoint.ckpt_path} to go on from"
        return f"{place} {what} ({found}), {none}; choose another --{named}, or the --ckpt_path that has some"
    go_on = "go on with a run by --load_checkpoint, or " if known else ""
    return f"{place} {what} ({found}); {go_on}choose another --{named}"
