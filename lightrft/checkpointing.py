"""What a checkpoint holds, and when it is due. Only step boundaries are saved: no engine state, no half-made step."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from lightrft.errors import Refused
from lightrft.models.export import save_hf
from lightrft.strategy.base import Handle, Strategy
from lightrft.strategy.checkpoint import CheckpointFolder


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

    structure: the flags (and their values) that a checkpoint must have been made with.
    """

    def __init__(
        self,
        folder: CheckpointFolder,
        strategy: Strategy,
        policy: Handle,
        tokenizer: PreTrainedTokenizerBase,
        *,
        critic: Handle | None = None,
        with_hf: bool,
        structure: Mapping[str, Any],
    ) -> None:
        self.folder, self.strategy, self.policy, self.tokenizer = folder, strategy, policy, tokenizer
        self.trained = {"policy": policy} if critic is None else {"policy": policy, "critic": critic}
        self.with_hf, self.structure = with_hf, structure

    def save(self, step: int, state: Mapping[str, Any]) -> Path:
        return self.folder.save(step, lambda path: self._write(path, state))

    def _write(self, path: Path, state: Mapping[str, Any]) -> None:
        for name, handle in self.trained.items():
            (path / name).mkdir()
            self.strategy.save(handle, path / name)
        torch.save(random_state(), path / "random.pt")
        (path / "state.json").write_text(json.dumps(state, default=str))
        if self.with_hf:
            (path / "hf").mkdir()
            self._export(self.policy, path / "hf")

    def restore(self) -> tuple[Path, dict[str, Any]] | None:
        """Loads the newest whole checkpoint and returns its loop state, or None where there is none."""
        newest = self.folder.newest()
        if newest is None:
            return None
        _, path = newest
        state = json.loads((path / "state.json").read_text())
        self._check_fits(state["record"]["arguments"], path)
        for name, handle in self.trained.items():
            self.strategy.load(handle, path / name)
        set_random_state(torch.load(path / "random.pt", weights_only=True))
        return path, state

    def _check_fits(self, before: Mapping[str, Any], path: Path) -> None:
        """What a checkpoint's tensors depend on must be what it was."""
        for flag, now in self.structure.items():
            was = before[flag]["value"]
            if was != now:
                raise Refused(
                    f"--{flag} {now}: the checkpoint {path} was made with {was}; go on with that, or start anew"
                )
        for name in self.trained:
            if not (path / name).is_dir():
                raise Refused(f"--advantage_estimator: the checkpoint {path} was made without a {name}; start anew")

    def export(self, path: Path) -> None:
        """The policy as a Hugging Face folder, and the critic, where there is one, in `critic/` below."""
        for name, handle in self.trained.items():
            place = path if name == "policy" else path / name
            place.mkdir(exist_ok=True)
            self._export(handle, place)

    def _export(self, handle: Handle, path: Path) -> None:
        save_hf(handle.model, self.strategy.full_params(handle), self.tokenizer, path)
