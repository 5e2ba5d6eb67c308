"""What is said of a run that goes on."""

from __future__ import annotations

from lightrft.loop.progress import Progress
from lightrft.loop.restoring import Restored
from lightrft.track.console import Console


def tell(console: Console, restored: Restored, progress: Progress, *, end: str, planned: int, done_before: int) -> None:
    """end: the flag that says where the run ends, after `planned` steps; done_before: steps of the run before this."""
    for checkpoint in restored.damaged:
        console.warn(f"{checkpoint} cannot be loaded, and goes when the next checkpoint is whole")
    if restored.left_over:
        console.always(f"removed what a killed save had left: {', '.join(restored.left_over)}")
    if restored.start not in (None, restored.path):
        console.always(f"--ckpt_path {restored.start}: the run has gone on from there already")
    console.always(f"resumed from step {progress.step} ({restored.path})")
    if progress.done:
        console.always(f"notice: the checkpoint is at step {progress.step}, {_past(progress.step, planned, end)}")
        return
    again = min(done_before, progress.total_steps)
    if again > progress.step:
        console.warn(f"steps {progress.step + 1} to {again} were done already and are done again")
    for line in restored.news:
        console.always(line)


def _past(step: int, planned: int, end: str) -> str:
    where = "where the data end" if step < planned else f"the last of {end}" if step == planned else f"beyond {end}"
    return f"{where}: nothing is left to do"
