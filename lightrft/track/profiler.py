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
        recording = profile(activities=activities)
        running = self._succeeds(step, recording.start)
        try:
            yield
        finally:
            if running and self._succeeds(step, recording.stop):
                dearest = "self_device_time_total" if on_gpu else "self_cpu_time_total"
                self._succeeds(step, lambda: self._write(recording, step, dearest))

    def _succeeds(self, step: int, act: Callable[[], None]) -> bool:
        """A full disk or a busy profiler is reported, and training goes on."""
        try:
            act()
        except Exception as error:
            report_failure(f"--profile_steps {step}", error)
            return False
        return True

    def _write(self, recording: profile, step: int, dearest: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        table = recording.key_averages().table(sort_by=dearest, row_limit=ROWS, max_name_column_width=60)
        (self._folder / f"step_{step:06d}.txt").write_text(table + "\n")
        recording.export_chrome_trace(str(self._folder / f"step_{step:06d}.json"))
