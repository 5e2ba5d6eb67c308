"""`--profile_steps`: these steps run under torch's profiler."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lightrft.track.base import report_failure

if TYPE_CHECKING:
    from torch.profiler import profile

ROWS = 40


class Profiler:
    """`with profiler(step):` leaves `<folder>/step_<step>.json`, a Chrome trace, and `.txt`, the dearest operations."""

    def __init__(self, folder: Path, steps: Sequence[int]) -> None:
        self._folder, self._steps = folder, frozenset(steps)

    @contextmanager
    def __call__(self, step: int) -> Iterator[None]:
        if step not in self._steps:
            yield
            return
        import torch
        from torch.profiler import ProfilerActivity, profile

        on_gpu = torch.cuda.is_available()
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
        found = profile(activities=activities)
        running = self._tried(step, found.start)
        try:
            yield
        finally:
            if running and self._tried(step, found.stop):
                dearest = "self_device_time_total" if on_gpu else "self_cpu_time_total"
                self._tried(step, lambda: self._write(found, step, dearest))

    def _tried(self, step: int, act: Callable[[], None]) -> bool:
        """Whether it went well; a full disk or a busy profiler is reported, and training goes on."""
        try:
            act()
        except Exception as error:
            report_failure(f"--profile_steps {step}", error)
            return False
        return True

    def _write(self, found: profile, step: int, dearest: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        table = found.key_averages().table(sort_by=dearest, row_limit=ROWS, max_name_column_width=60)
        (self._folder / f"step_{step:06d}.txt").write_text(table + "\n")
        found.export_chrome_trace(str(self._folder / f"step_{step:06d}.json"))
