"""`--use_wandb PROJECT`: Weights & Biases. A thread of its own calls it, so that it never holds up training.

wandb's calls may wait for a network, a disk or its service process. The trainer's next call raises what failed in the
thread, and so it is reported once. At the end of a run, calls that wait get `patience` seconds.
"""

from __future__ import annotations

import io
import logging
import math
import os
import re
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

from lightrft.errors import Refused
from lightrft.track.base import Logger
from lightrft.track.samples import Sample, shown_of
from lightrft.track.step_files import write_whole
from lightrft.types import Outcome

if TYPE_CHECKING:
    from lightrft.args.groups.logging import LoggingArgs

API_KEY = re.compile(r"\b([0-9a-f]{40}|wandb_v\d+_\w+|\w{64,})\b", re.IGNORECASE)  # old; since 2025; whatever is next
NEW_KEY = re.compile(r"\bwandb_v\d+_\w+")  # a run may well be named after a commit, which looks like an old key
WITHOUT_KEY = ("offline", "dryrun", "disabled")  # values of WANDB_MODE
NOT_IN_A_PROJECT = re.compile(r"[/\\#?%:]|.{129}")
PATIENCE_S = 30.0
SERVICE = "wandb-core"
DATA_DIR = "WANDB_DATA_DIR"
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


@dataclass(frozen=True)
class Entry:
    """What belongs to a step. ended: nothing else will come for it."""

    step: int
    values: Mapping[str, float]
    samples: Sequence[Sample] = ()
    ended: bool = True


class WandB(Logger):
    """One W&B run, with the flags' values as its config; the samples that `--save_trajectories` saves are a table of
    each step. `print_line` gets the run's address.
    """

    def __init__(
        self,
        args: LoggingArgs,
        resumed: int,
        name: str,
        arguments: Mapping[str, Any],
        print_line: Callable[[str], None],
        patience: float = PATIENCE_S,
    ) -> None:
        self._patience, self._print, self._shows_samples = patience, print_line, args.save_trajectories
        self._waiting: SimpleQueue[Entry | int] = SimpleQueue()
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
        self._waiting.put(Entry(step, dict(values), ended=not self._shows_samples or not step))

    def rollouts(self, outcomes: Sequence[Outcome], samples: Sequence[Sample], step: int) -> None:
        if self._shows_samples:
            self._waiting.put(Entry(step, {}, samples))

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
                with _data_in(Path(options["dir"])):
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
            samples = {"samples": _table(entry.samples)} if entry.samples else {}
            run.log({**entry.values, **samples}, step=entry.step, commit=entry.ended)
        run.finish(exit_code=entry)


@contextmanager
def _data_in(folder: Path) -> Iterator[None]:
    """The files of tables wait for their upload there, and not in the user's home."""
    own = DATA_DIR in os.environ
    os.environ.setdefault(DATA_DIR, str(folder.absolute() / "wandb"))
    try:
        yield
    finally:
        if not own:
            del os.environ[DATA_DIR]


def _table(samples: Sequence[Sample]) -> Any:
    """A row for each sample: prompt, its pictures, response, reward and parts; None for what another sample has."""
    import wandb
    from PIL import Image

    shown = [shown_of(sample) for sample in samples]
    parts = list(dict.fromkeys(name for each in shown for name in each.parts))
    most = max(len(sample.pictures) for sample in samples)
    columns: list[Any] = ["prompt", *(f"image_{number}" for number in range(1, most + 1)), "response", "reward", *parts]
    table = wandb.Table(columns=columns)
    for sample, each in zip(samples, shown, strict=True):
        pictures = [wandb.Image(Image.open(io.BytesIO(picture))) for picture in sample.pictures]
        missing, reward = [None] * (most - len(pictures)), None if math.isnan(each.reward) else each.reward
        table.add_data(each.prompt, *pictures, *missing, each.response, reward, *map(each.parts.get, parts))
    return table


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
