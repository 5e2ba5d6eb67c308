"""`--use_wandb PROJECT`: Weights & Biases. A thread of its own calls it, so that it never holds up training.

wandb's calls may wait for a network, a disk or its service process. The trainer's next call raises what failed in the
thread, and so it is reported once. At the end of a run, calls that wait get `patience` seconds.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

from lightrft.errors import Refused
from lightrft.track.base import Logger
from lightrft.track.step_files import write_whole

if TYPE_CHECKING:
    from lightrft.args.groups.logging import LoggingArgs

API_KEY = re.compile(r"\b([0-9a-f]{40}|wandb_v\d+_\w+|\w{64,})\b", re.IGNORECASE)  # old; since 2025; whatever is next
NEW_KEY = re.compile(r"\bwandb_v\d+_\w+")  # a run may well be named after a commit, which looks like an old key
WITHOUT_KEY = ("offline", "dryrun", "disabled")  # values of WANDB_MODE
NOT_IN_A_PROJECT = re.compile(r"[/\\#?%:]|.{129}")
PATIENCE_S = 30.0
SERVICE = "wandb-core"
BLOCK = 1 << 15


def check(args: LoggingArgs) -> None:
    """Refuses what would fail during the run, or would publish a secret."""
    if args.use_wandb is None:
        return
    for flag, key in (("use_wandb", API_KEY), ("wandb_org", API_KEY), ("wandb_run_name", NEW_KEY)):
        if key.search(getattr(args, flag) or ""):
            raise Refused(f"--{flag} got what looks like an API key; set WANDB_API_KEY, and give --use_wandb a project")
    if NOT_IN_A_PROJECT.search(args.use_wandb) or not args.use_wandb:
        raise Refused(f"--use_wandb {args.use_wandb!r} is no W&B project: 1 to 128 characters without / \\ # ? % :")
    if find_spec("wandb") is None:
        raise Refused(f"--use_wandb {args.use_wandb}: wandb is not installed: `pip install wandb`")
    if os.environ.get("WANDB_MODE") not in WITHOUT_KEY and not os.environ.get("WANDB_API_KEY"):
        raise Refused(f"--use_wandb {args.use_wandb}: there is no key; set WANDB_API_KEY, or WANDB_MODE=offline")


class WandB(Logger):
    """One W&B run, with the flags' values as its config. `print_line` gets the run's address."""

    def __init__(
        self,
        args: LoggingArgs,
        resumed: int,
        name: str,
        arguments: Mapping[str, Any],
        print_line: Callable[[str], None],
        patience: float = PATIENCE_S,
    ) -> None:
        self._patience, self._print = patience, print_line
        self._waiting: SimpleQueue[tuple[dict[str, float], int] | int] = SimpleQueue()
        self._error: Exception | None = None
        options = {"project": args.use_wandb, "entity": args.wandb_org, "dir": args.log_dir, "resume": "allow"}
        options |= {"id": run_id(Path(args.log_dir), resumed), "name": name, "config": dict(arguments)}
        self._thread = Thread(target=self._work, args=(options,), name="wandb", daemon=True)
        self._thread.start()

    def evaluated(self, values: Mapping[str, float]) -> None:
        self.metrics(values, 0)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        if self._error is not None:
            raise self._error
        self._waiting.put((dict(values), step))

    def close(self) -> None:
        """Marks the run as failed where an exception is on its way through the trainer."""
        self._waiting.put(0 if sys.exc_info()[0] is None else 1)
        self._thread.join(self._patience + 1)
        if self._thread.is_alive():
            _kill_service()  # else the interpreter would wait for it at exit; now the thread's calls fail
            self._thread.join(1)
            raise TimeoutError(f"no end after {self._patience:g} s; `wandb sync` sends what it has kept in --log_dir")
        if self._error is not None:
            raise self._error

    def _work(self, options: Mapping[str, Any]) -> None:
        try:
            import wandb

            try:
                run = wandb.init(**options, settings=self._settings())
                self._send_all(run)
            finally:
                with suppress(Exception):  # of a service that is gone already
                    wandb.teardown()
            if run.offline and not is_whole(log := Path(run.settings.sync_file)):
                raise OSError(f"{log} is cut short; is the disk full?")
        except Exception as error:
            self._error = error

    def _settings(self) -> Any:
        """Nothing is printed, nothing of our output is captured, and W&B gets `patience` seconds for the end."""
        import wandb

        return wandb.Settings(console="off", silent=True, finish_timeout=self._patience, finish_timeout_raises=True)

    def _send_all(self, run: Any) -> None:
        logging.getLogger("wandb").setLevel(logging.CRITICAL)  # on a full disk it would print a traceback per message
        if not run.offline and run.url:
            self._print(f"W&B run: {run.url}")
        while not isinstance(entry := self._waiting.get(), int):
            values, step = entry
            run.log(values, step=step, commit=True)
        run.finish(exit_code=entry)


def run_id(folder: Path, resumed: int) -> str:
    """Kept in `<folder>/wandb_id`: a resumed run goes on in its own W&B run, a fresh one gets a new one."""
    file = folder / "wandb_id"
    if not resumed or not file.is_file():
        write_whole(file, secrets.token_hex(8) + "\n")
    return file.read_text().strip()


def is_whole(log: Path) -> bool:
    """W&B's service hides that it could not write. Its log is one of LevelDB's: blocks of 32 KiB, and before each piece
    of a record four bytes of checksum, two of length, one of kind (1 whole record, 4 last piece)."""
    content, at, kind = log.read_bytes(), 7, 1
    while at < len(content):
        left = BLOCK - at % BLOCK
        if left < 7:  # too little for a header: filled up with zeros
            at += left
            continue
        kind = content[at + 6] if at + 6 < len(content) else 0
        at += 7 + int.from_bytes(content[at + 4 : at + 6], "little")
    return at == len(content) > 7 and kind in (1, 4)


def _kill_service() -> None:
    import psutil

    for child in psutil.Process().children():
        if child.name() == SERVICE:
            child.kill()
