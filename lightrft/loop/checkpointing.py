"""Checkpoints are saved and restored. They are of step boundaries only: no engine state, no half-made step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from lightrft.errors import Refused, RunFailed, os_error_text
from lightrft.loop.checkpoint_folder import CheckpointFolder
from lightrft.loop.checksums import check_files, files_below, sums_of
from lightrft.loop.damage import check_damage, why_damaged
from lightrft.loop.disk import free_bytes
from lightrft.loop.disk_errors import as_disk_error
from lightrft.loop.random_state import read_random_state, set_random_state, write_random_state
from lightrft.loop.state_file import Shapes, read_state, write_state
from lightrft.models.export import save_hf
from lightrft.models.given import Given
from lightrft.strategy.base import Handle, Strategy, shapes
from lightrft.strategy.state import Damaged, StateReader, write_model_state

# Bytes that a parameter takes, at most
IN_A_MODEL = 4
IN_A_CHECKPOINT = 12  # a float32 weight, and AdamW's two moments


@dataclass(frozen=True)
class Boundary:
    """What goes into the checkpoint of `step` beside the models: the loop's state, as JSON, and random states."""

    step: int
    state: Mapping[str, Any]
    random: Mapping[str, Any]


@dataclass(frozen=True)
class Restored:
    """path: the checkpoint that was loaded. news: what `apply` has said of its state.

    damaged: newer ones that could not be loaded, each with the reason. left_over: of killed saves, removed now.
    """

    path: Path
    news: list[str]
    damaged: list[str]
    left_over: list[str]


class SaveFailed(RunFailed):
    """A checkpoint could not be written; those before it are as they were."""


class Checkpointer:
    """Saves and restores the policy and the critic, each with its optimizer, and the loop's own state as JSON.

    given: of each, what an export returns beside the weights.
    structure: the flags (and their values) that a checkpoint must have been made with.
    """

    def __init__(
        self,
        folder: CheckpointFolder,
        strategy: Strategy,
        policy: Handle,
        given: Mapping[str, Given],
        *,
        critic: Handle | None = None,
        with_hf: bool,
        structure: Mapping[str, Any],
    ) -> None:
        self.folder, self.strategy, self.policy = folder, strategy, policy
        self.trained = {"policy": policy} if critic is None else {"policy": policy, "critic": critic}
        self.given, self.with_hf, self.structure = given, with_hf, structure

    def save(self, boundary: Boundary) -> Path:
        what = f"--ckpt_path {self.folder.path}: the checkpoint of step {boundary.step} could not be written"
        with self._disk_error_as(SaveFailed, what, self.folder.path, IN_A_CHECKPOINT):
            return self.folder.save(boundary.step, lambda path: self._write(path, boundary))

    def _write(self, path: Path, boundary: Boundary) -> None:
        with as_disk_error(path):
            for name, handle in self.trained.items():
                (path / name).mkdir()
                write_model_state(self.strategy.state(handle), path / name, self.strategy.world.rank)
            write_random_state(path, self.strategy.world.rank, boundary.random)
            write_state(path, boundary.state, self._shapes(), sums_of(path, files_below(path)))
            if self.with_hf:
                (path / "hf").mkdir()
                self._export("policy", path / "hf")

    def restore(self, apply: Callable[[Mapping[str, Any]], list[str]]) -> Restored | None:
        """Loads the newest checkpoint that is whole; None where there is none at all.

        apply: gives the loop its state, and returns what there is to say about it.
        """
        damaged: list[str] = []
        for step, path in self.folder.newest_first():
            try:
                news = self._load(path, step, apply)
            except Refused:
                raise
            except Exception as error:
                check_damage(error, path)
                damaged.append(f"{path.name} ({why_damaged(error, path)})")
            else:
                self.folder.go_back(step)
                left_over = self.folder.clean()
                return Restored(dict(self.folder.newest_first())[step], news, damaged, left_over)
        if damaged:
            raise Refused(
                f"--load_checkpoint: no checkpoint in {self.folder.path} can be loaded: {', '.join(damaged)}; "
                "bring one back, or start anew with another --save_path"
            )
        self.folder.clean()
        return None

    def _load(self, path: Path, step: int, apply: Callable[[Mapping[str, Any]], list[str]]) -> list[str]:
        state = read_state(path, self.structure, self._shapes())
        if state["progress"]["step"] != step:
            raise Damaged(f"its state.json is of step {state['progress']['step']}")
        check_files(path, state["files"])
        random = read_random_state(path, self.strategy.world.rank)
        for name, handle in self.trained.items():
            self.strategy.load_state(handle, StateReader(path / name))
        if random is not None:
            set_random_state(random)
        return apply(state)

    def _shapes(self) -> dict[str, Shapes]:
        return {name: shapes(handle.model) for name, handle in self.trained.items()}

    def export(self, path: Path) -> None:
        """The policy as a Hugging Face folder, and the critic, where there is one, in `critic/` below."""
        for name in self.trained:
            place = path if name == "policy" else path / name
            what = f"--save_path {path}: the trained {name} could not be written"
            with self._disk_error_as(RunFailed, what, path, IN_A_MODEL):
                place.mkdir(exist_ok=True)
                with as_disk_error(place):
                    self._export(name, place)

    def _export(self, name: str, path: Path) -> None:
        handle = self.trained[name]
        save_hf(handle.model, self.strategy.full_params(handle), self.given[name], path)

    @contextmanager
    def _disk_error_as(self, kind: type[RunFailed], what: str, path: Path, bytes_each: int) -> Iterator[None]:
        """A disk's refusal, with how much is needed and where one can go on. bytes_each: what a parameter takes."""
        try:
            yield
        except OSError as error:
            parameters = sum(prod(shape) for model in self._shapes().values() for shape in model.values())
            room = f"about {_megabytes(parameters * bytes_each)} are needed, {_megabytes(free_bytes(path))} free"
            newest = self.folder.newest()
            stands = f"{newest[1]} stands" if newest else "there is no checkpoint before"
            raise kind(
                f"{what}: {os_error_text(error)} ({room}); {stands}; make room and use --load_checkpoint"
            ) from error


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
