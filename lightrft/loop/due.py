"""When a checkpoint is due."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Due:
    """`--save_steps` counts steps, `--save_interval` episodes (0 = never)."""

    every_steps: int | None
    every_episodes: int

    def __call__(self, step: int, episode_before: float, episode_after: float) -> bool:
        """Whether one is due after `step`, which went from one episode to the other; both are fractions."""
        if self.every_steps and step % self.every_steps == 0:
            return True
        whole = self.every_episodes
        return bool(whole) and int(episode_after) // whole > int(episode_before) // whole
