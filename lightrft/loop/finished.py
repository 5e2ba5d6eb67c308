"""Whether the run is done already: a script that repeats one command until the run is done ends here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightrft.args import Args
from lightrft.args.show import as_dict
from lightrft.loop.checkpoint_folder import CheckpointFolder
from lightrft.loop.origin import origin
from lightrft.models.content import contents
from lightrft.models.export import MARKS
from lightrft.track.run_record import differences, hashes


def finished_already(args: Args) -> str | None:
    """One line where `--load_checkpoint` has no checkpoint, but the folders hold this very run with its model: the same
    arguments and files in run.json, and as many steps as are asked for. None where that is not so, or cannot be read.
    """
    c = args.checkpoint
    if not c.load_checkpoint or CheckpointFolder(origin(args).folder, 1, 1).newest_first():
        return None
    try:
        record = json.loads((Path(args.logging.log_dir) / "run.json").read_text())
        steps = json.loads((Path(c.save_path) / "summary.json").read_text())["steps"]
        last = json.loads((Path(args.logging.log_dir) / "metrics.jsonl").read_text().splitlines()[-1])
        done = last["step"] == steps and _took_all_steps(args, last)
        if not (done and _is_same_run(record, args) and _holds_model(Path(c.save_path))):
            return None
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None
    return f"finished already: {steps} steps; model in {c.save_path}"


def _is_same_run(record: Mapping[str, Any], args: Args) -> bool:
    arguments = json.loads(json.dumps(as_dict(args), default=str))
    now = {"arguments": arguments, "hashes": hashes(record["hashes"]), "contents": contents(args.model)}
    return not differences({name: record[name] for name in now}, now)


def _took_all_steps(args: Args, last: Mapping[str, Any]) -> bool:
    """By the last line of metrics.jsonl: its step, or the passes over the prompts that were drawn by then."""
    asked = args.training.max_steps
    return last["step"] == asked if asked is not None else last["episode"] >= args.training.num_episodes


def _holds_model(folder: Path) -> bool:
    return any((folder / mark).is_file() for mark in MARKS) and any(folder.glob("*.safetensors"))
