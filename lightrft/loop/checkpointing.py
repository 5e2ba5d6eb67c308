"""What a checkpoint holds, and when it is due. Only step boundaries are saved: no engine state, no half-made step."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightrft.errors import Refused, RunFailed, system_says
from lightrft.loop.checkpoint_folder import CheckpointFolder, disk_speaks
from lightrft.loop.damage import Damaged, check_damage, why_damaged
from lightrft.models.export import save_hf
from lightrft.models.given import Given
from lightrft.strategy.base import Handle, Strategy, shapes

# Bytes that a parameter takes, at most
IN_A_MODEL = 4
IN_A_CHECKPOINT = 16  # a float32 weight, its master copy, and AdamW's two moments


@dataclass(frozen=True)
class Due:
    """`--save_steps` counts steps, `--save_interval` episodes (0 = never)."""

    every_steps: int | None
    every_episodes: int

    def __call__(self, step: int, episode_before: float, episode_after: float) -> bool:
        if self.every_steps and step % self.every_steps == 0:
            return True
        whole = self.every_episodes
        return bool(whole) and int(episode_after) // whole > int(episode_before) // whole


@dataclass(frozen=True)
class Boundary:
    """What goes into the checkpoint of `step` beside the models: the loop's state, as JSON, and random states."""

    step: int
    state: Mapping[str, Any]
    random: Mapping[str, Any]


@dataclass(frozen=True)
class Restored:
    """path: the checkpoint that was loaded. news: what its reader has to tell.

    damaged: newer ones that could not be loaded, each with the reason. left_over: of killed saves, removed now.
    """

    path: Path
    news: list[str]
    damaged: list[str]
    left_over: list[str]


class SaveFailed(RunFailed):
    """A checkpoint could not be written; those before it are as they were."""


def random_state() -> dict[str, Any]:
    """Of the generators that users' reward functions may draw from; our own noise is counter-based."""
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached],
        "python": [version, list(internal), gauss],
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))


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
        with self._one_line(SaveFailed, what, self.folder.path, IN_A_CHECKPOINT):
            return self.folder.save(boundary.step, lambda path: self._write(path, boundary))

    def _write(self, path: Path, boundary: Boundary) -> None:
        """state.json last, with the sizes of the files before it: it tells whether they are whole."""
        with disk_speaks(path):
            for name, handle in self.trained.items():
                (path / name).mkdir()
                self.strategy.save(handle, path / name)
            torch.save(dict(boundary.random), path / "random.pt")
            models = {name: shapes(handle.model) for name, handle in self.trained.items()}
            state = {**boundary.state, "models": models, "files": sizes(path)}
            (path / "state.json").write_text(json.dumps(state, default=str))
            if self.with_hf:
                (path / "hf").mkdir()
                self._export("policy", path / "hf")

    def restore(self, apply: Callable[[Mapping[str, Any]], list[str]]) -> Restored | None:
        """Loads the newest checkpoint that is whole, and hands the loop its state; None where there is none at all."""
        damaged: list[str] = []
        for step, path in self.folder.newest_first():
            try:
                state = self._read(path)
                if state["progress"]["step"] != step:
                    raise Damaged(f"its state.json is of step {state['progress']['step']}")
                news = self._load(path, state, apply)
            except Refused:
                raise
            except Exception as error:
                check_damage(error, path)
                damaged.append(f"{path.name} ({why_damaged(error, path)})")
                continue
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

    def _read(self, path: Path) -> dict[str, Any]:
        """state.json, checked against the flags, the models and the other files."""
        try:
            state = json.loads((path / "state.json").read_text())
        except ValueError as error:
            raise Damaged(f"its state.json is broken: {error}") from error
        self._check_fits(state, path)
        for name, size in state["files"].items():
            found = (path / name).stat().st_size
            if found != size:
                raise Damaged(f"{name} has {found} bytes of {size}")
        return state

    def _check_fits(self, state: Mapping[str, Any], path: Path) -> None:
        """What a checkpoint's tensors depend on must be what it was."""
        arguments = state["record"]["arguments"]
        for flag, now in self.structure.items():
            was = arguments[flag]["value"]
            if was != now:
                raise Refused(
                    f"--{flag} {now}: the checkpoint {path} was made with {was}; go on with that, or start anew"
                )
        for name, handle in self.trained.items():
            if name not in state["models"]:
                raise Refused(f"--advantage_estimator: the checkpoint {path} was made without a {name}; start anew")
            difference = first_difference(state["models"][name], shapes(handle.model))
            if difference:
                own = name == "critic" and arguments["critic_pretrain"]["value"]
                flag = "critic_pretrain" if own else "pretrain"
                raise Refused(
                    f"--{flag}: the checkpoint {path} is of another model ({difference}); go on with the "
                    f"--{flag} {arguments[flag]['value']} that it was made with, or start anew with another --save_path"
                )

    def _load(self, path: Path, state: Mapping[str, Any], apply: Callable[[Mapping[str, Any]], list[str]]) -> list[str]:
        numbers = torch.load(path / "random.pt", weights_only=True)
        for name, handle in self.trained.items():
            self.strategy.load(handle, path / name)
        set_random_state(numbers)
        return apply(state)

    def export(self, path: Path) -> None:
        """The policy as a Hugging Face folder, and the critic, where there is one, in `critic/` below."""
        for name in self.trained:
            place = path if name == "policy" else path / name
            what = f"--save_path {path}: the trained {name} could not be written"
            with self._one_line(RunFailed, what, path, IN_A_MODEL):
                place.mkdir(exist_ok=True)
                with disk_speaks(place):
                    self._export(name, place)

    def _export(self, name: str, path: Path) -> None:
        handle = self.trained[name]
        save_hf(handle.model, self.strategy.full_params(handle), self.given[name], path)

    @contextmanager
    def _one_line(self, kind: type[RunFailed], what: str, path: Path, parameter: int) -> Iterator[None]:
        """A disk's refusal, with how much is needed and where one can go on. parameter: bytes that one takes."""
        try:
            yield
        except OSError as error:
            parameters = sum(prod(shape) for handle in self.trained.values() for shape in shapes(handle.model).values())
            room = f"about {megabytes(parameters * parameter)} are needed, {megabytes(free_bytes(path))} free"
            newest = self.folder.newest()
            stands = f"{newest[1]} stands" if newest else "there is no checkpoint before"
            raise kind(
                f"{what}: {system_says(error)} ({room}); {stands}; make room and use --load_checkpoint"
            ) from error


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file, by its path in the folder."""
    return {
        entry.relative_to(folder).as_posix(): entry.stat().st_size
        for entry in sorted(folder.rglob("*"))
        if entry.is_file()
    }


def first_difference(was: Mapping[str, list[int]], now: Mapping[str, list[int]]) -> str | None:
    """Of two models, by names and shapes of their tensors."""
    for name in sorted(was.keys() | now.keys()):
        if name not in now or name not in was:
            return f"{name} is only in {'the checkpoint' if name in was else 'this model'}"
        if was[name] != now[name]:
            return f"{name} is {was[name]} there, {now[name]} here"
    return None


def free_bytes(path: Path) -> int:
    nearest = next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())
    return shutil.disk_usage(nearest).free


def megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
