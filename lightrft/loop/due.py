"""When a checkpoint is due."""

from __future__ import annotations

from dataclasses import dataclass

from lightrft.args import Args


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


def told_of_saves(args: Args, steps: int, each: int, prompts: int) -> list[str]:
    """That a flag which was typed saves nothing, or nothing that the other does not, and why. Where dynamic sampling
    decides how long an episode is, nobody can say.

    steps: of the run, of `each` prompts; prompts: of an episode.
    """
    c = args.checkpoint
    due = {"save_steps": Due(c.save_steps, 0), "save_interval": Due(None, c.save_interval)}
    for flag, other in (("save_steps", "save_interval"), ("save_interval", "save_steps")):
        if not args.typed(flag) or not args.value(flag) or args.algorithm.dynamic_sampling:
            continue
        at, others = (
            {step for step in range(1, steps + 1) if due[by](step, (step - 1) * each / prompts, step * each / prompts)}
            for by in (flag, other)
        )
        shown = f"--{flag} {args.value(flag)} cannot matter"
        if not at and (flag == "save_interval" or args.training.max_steps is None):  # else a rule has told it
            return [f"{shown}: the run ends after {steps} steps, {steps * each / prompts:.3g} episodes"]
        if at and at <= others:
            whole = f"--{other} {args.value(other)} saves after these steps already"
            alone = "; --save_interval 0 saves by steps alone" if flag == "save_steps" else ""
            return [f"{shown}: {whole} (an episode is {prompts / each:.3g} steps){alone}"]
    return []
