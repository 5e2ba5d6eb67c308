"""Checkpoints are saved and restored. They are of step boundaries only: no engine state, no half-made step."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightrft.errors import Damaged, RunFailed, os_error_text
from lightrft.loop.checkpoint_folder import CheckpointFolder
from lightrft.loop.checksums import check_files, share
from lightrft.loop.disk import free_bytes
from lightrft.loop.disk_errors import as_disk_error
from lightrft.loop.gathered import write_gathered
from lightrft.loop.origin import BEGAN, Origin
from lightrft.loop.random_state import read_random_state, set_random_state, write_random_state
from lightrft.loop.restoring import Restored, or_damaged, restore
from lightrft.loop.state_file import Shapes, read_state, write_state
from lightrft.loop.writing import Contents, Writer
from lightrft.models.export import save_hf
from lightrft.models.given import Given
from lightrft.ranks.base import Ranks
from lightrft.ranks.pulse import PULSE
from lightrft.ranks.together import together
from lightrft.strategy.base import Handle, Strategy, shapes
from lightrft.strategy.state import StateReader, write_model_state
from lightrft.update.ema import MovingAverage

if TYPE_CHECKING:
    from torch import Tensor

# The export in a checkpoint; in an export the average, and with adapters the model that they are merged into
HF, EMA, MERGED = "hf", "ema", "merged"
# Bytes that a parameter takes, at most
IN_A_MODEL = 4
IN_A_CHECKPOINT = 12  # a float32 weight, and AdamW's two moments


@dataclass(frozen=True)
class Boundary:
    """What goes into the checkpoint of `step` beside the models: the loop's state, as JSON, and this rank's random
    states."""

    step: int
    state: Mapping[str, Any]
    random: Mapping[str, Any]


class SaveFailed(RunFailed):
    """A checkpoint could not be written; those before it are as they were."""


class Checkpointer:
    """Saves and restores the policy and the critic, each with its optimizer, and the loop's own state as JSON.

    All ranks make the same calls. ranks: all processes. given: of each model, what an export returns beside the
    weights. average: of the policy, is a part of its state. structure: the flags (and their values) that a checkpoint
    must have been made with, and contents, by flag, the weights. newest: the last checkpoint of this run, and its
    step. behind: checkpoints are written while the run goes on. merges: adapters are exported merged too.
    """

    def __init__(
        self,
        folder: CheckpointFolder,
        ranks: Ranks,
        strategy: Strategy,
        policy: Handle,
        given: Mapping[str, Given],
        *,
        critic: Handle | None = None,
        average: MovingAverage | None = None,
        with_hf: bool,
        merges: bool = False,
        structure: Mapping[str, Any],
        contents: Mapping[str, str] | None = None,
        origin: Origin | None = None,
        behind: bool = False,
    ) -> None:
        self.folder, self.ranks, self.strategy, self.policy = folder, ranks, strategy, policy
        self.trained = {"policy": policy} if critic is None else {"policy": policy, "critic": critic}
        self.average, self.given, self.with_hf, self.structure = average, given, with_hf, structure
        self.merges, self.contents = merges, contents or {}
        self.origin = origin or Origin(folder.path)
        self.began_at = self.origin.mark
        self.newest: tuple[int, Path] | None = None
        self.writer = Writer(folder, ranks, self._save_failed, behind=behind)

    def save(self, boundary: Boundary) -> Path:
        """A checkpoint that is whole when this returns."""
        self.begin(boundary)
        self.settle()
        assert self.newest is not None
        return self.newest[1]

    def begin(self, boundary: Boundary) -> None:
        """`settle` makes it whole. What it holds is as of now, whatever the next steps change."""
        self.settle()
        with PULSE.during("save"):
            self.writer.begin(boundary.step, lambda path: self._prepare(path, boundary))
        if not self.writer.behind:
            self.settle()

    def settle(self, *, wait: bool = True) -> None:
        """Makes whole what was begun; without `wait` only where all ranks have written their parts by now."""
        with PULSE.during("save"):
            self.newest = self.writer.settle(wait=wait) or self.newest

    def _prepare(self, path: Path, boundary: Boundary) -> Callable[[], Contents]:
        """`path` is there for all ranks. The export needs all of them, and is made at once."""
        refused = self._export("policy", path / HF) if self.with_hf else None
        return lambda: self._stage(boundary, refused)

    def _stage(self, boundary: Boundary, refused: Exception | None) -> Contents:
        """Copies what the next steps change; asks no other rank for anything."""
        if refused is not None:
            raise refused
        states = {name: self.strategy.state(handle) for name, handle in self.trained.items()}
        models = self._shapes()

        def write(path: Path) -> Iterator[Path]:
            for name, state in states.items():
                (path / name).mkdir(exist_ok=True)
                yield write_model_state(state, path / name, self.ranks.rank)
            yield write_random_state(path, self.ranks.rank, boundary.random)

        state = {**boundary.state, BEGAN: self.began_at}
        return Contents(write, lambda path, sums: write_state(path, state, models, sums))

    def restore(self, apply: Callable[[Mapping[str, Any]], list[str]]) -> Restored | None:
        """Loads the newest checkpoint that is whole; None where there is none at all.

        apply: gives the loop its state, and returns what there is to say about it.
        """
        self.writer.settle()
        restored = restore(self.folder, self.origin, self.ranks, lambda path, step: self._load(path, step, apply))
        self.newest = restored and (restored.step, restored.path)
        return restored

    def _load(self, path: Path, step: int, apply: Callable[[Mapping[str, Any]], list[str]]) -> list[str]:
        state = or_damaged(self.ranks, path, lambda: self._checked_state(path, step))
        news = or_damaged(self.ranks, path, lambda: self._apply(path, state, apply))
        for handle in self.trained.values():
            self.strategy.use_loaded(handle)
        return news

    def _checked_state(self, path: Path, step: int) -> dict[str, Any]:
        """Before anything is loaded, each rank reads its share of all files."""
        state = read_state(path, self.structure, self._shapes(), self.contents)
        if state["progress"]["step"] != step:
            raise Damaged(f"its state.json is of step {state['progress']['step']}")
        check_files(path, share(state["files"], self.ranks.rank, self.ranks.size))
        return state

    def _apply(
        self, path: Path, state: Mapping[str, Any], apply: Callable[[Mapping[str, Any]], list[str]]
    ) -> list[str]:
        """What each rank does by itself, of all models."""
        for name, handle in self.trained.items():
            self.strategy.load_state(handle, StateReader(path / name))
        random = read_random_state(path, self.ranks.rank)
        if random is not None:
            set_random_state(random)
        self.began_at = self.origin.mark or state[BEGAN]
        return apply(state)

    def _shapes(self) -> dict[str, Shapes]:
        return {name: shapes(handle) for name, handle in self.trained.items()}

    def export(self, path: Path) -> None:
        """The policy as a Hugging Face folder; below it the critic in `critic/` and the average in `ema/`, where there
        are such."""
        self.settle()
        for name in self.trained:
            place = path if name == "policy" else path / name
            refused = self._export(name, place)
            with together(self.ranks):
                if isinstance(refused, OSError):
                    what = f"--save_path {path}: the trained {name} could not be written"
                    raise RunFailed(self._refusal(what, refused, path, IN_A_MODEL)) from refused
                if refused is not None:
                    raise refused

    def _export(self, name: str, path: Path) -> Exception | None:
        """Why rank 0 could not write it, on rank 0. All ranks call it together."""
        handle, given = self.trained[name], self.given[name]
        averages = {path / EMA: self.average} if name == "policy" and self.average is not None else {}
        models: dict[Path, Iterator[tuple[str, Tensor]]] = {}
        if handle.adapters is None:
            models = {path: self.strategy.full_params(handle)}
            models |= {place: average.params() for place, average in averages.items()}
        else:
            names = handle.adapters.names
            models = {path: self.strategy.tensors(handle, names)}
            models |= {place: average.tensors(names) for place, average in averages.items()}
            if self.merges:
                models[path / MERGED] = self.strategy.full_params(handle)
                models |= {place / MERGED: average.params() for place, average in averages.items()}

        def write(place: Path, params: Iterable[tuple[str, Tensor]]) -> None:
            place.mkdir(exist_ok=True)
            with as_disk_error(place):
                if handle.adapters is None or place.name == MERGED:
                    save_hf(handle.model, params, given, place)
                else:
                    handle.adapters.save(params, given, place)

        return write_gathered(models, write, self.ranks)

    def _save_failed(self, step: int, error: OSError) -> SaveFailed:
        what = f"--ckpt_path {self.folder.path}: the checkpoint of step {step} could not be written"
        return SaveFailed(self._refusal(what, error, self.folder.path, IN_A_CHECKPOINT))

    def _refusal(self, what: str, error: OSError, path: Path, bytes_each: int) -> str:
        """A disk's, with how much is needed and where one can go on. bytes_each: what a parameter takes."""
        parameters = sum(prod(shape) for model in self._shapes().values() for shape in model.values())
        room = f"about {_megabytes(parameters * bytes_each)} are needed, {_megabytes(free_bytes(path))} free"
        who = f" by rank {self.ranks.rank} on {socket.gethostname()}" if self.ranks.size > 1 else ""
        stands = f"{self.newest[1]} stands" if self.newest else "there is no checkpoint before"
        return f"{what}{who}: {os_error_text(error)} ({room}); {stands}; make room and use --load_checkpoint"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
