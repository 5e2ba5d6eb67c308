from __future__ import annotations

import pytest
from PIL import Image

from lightrft.track.base import Loggers
from lightrft.track.metrics_file import MetricsFile
from lightrft.track.plots import Plots


def names(folder):
    return {entry.name for entry in folder.iterdir()}


def test_png_files_at_every_nth_step_and_at_the_end(tmp_path, make_rollout):
    metrics, folder = tmp_path / "metrics.jsonl", tmp_path / "plots"
    file, before = MetricsFile(metrics, 0), {"accuracy": 0.1, "ci_low": 0.05, "ci_high": 0.2}
    plots = Plots(folder, 0, metrics, 2, lambda: before)
    plots.close()  # nothing to show yet
    assert names(folder) == set()
    rollouts = [make_rollout([1], [5] * n, total=1.0) for n in (1, 4, 4)]
    for step in (1, 2, 3):
        values = {"reward/mean": 0.1 * step, "rollout/length_mean": 3.0, "policy/entropy": float("nan")}
        values |= {"eval/accuracy": 0.5, "eval/ci_low": 0.4, "eval/ci_high": 0.6} if step == 2 else {}
        file.metrics(values, step)
        plots.metrics(values, step)
        plots.rollouts(rollouts, None, step)
        expected = {1: set(), 2: {"curves.png", "length_000002.png"}}.get(step)
        assert expected is None or names(folder) == expected
    (folder / "curves.png").unlink()
    plots.close()
    assert names(folder) == {"curves.png", "length_000002.png"}
    for entry in folder.iterdir():
        with Image.open(entry) as image:
            assert image.format == "PNG" and min(image.size) > 100
            assert len(image.convert("L").getcolors(256) or []) > 10  # something was drawn


class Kept(Plots):
    """Figures are kept instead of written."""

    def _save(self, figure, name):
        self.figures = {**getattr(self, "figures", {}), name: figure}


def drawn(plots: Kept, panel: int = 0) -> list[list[float]]:
    """Points of the curve in a panel."""
    return plots.figures["curves.png"].axes[panel].lines[0].get_xydata().tolist()


def test_the_curves_and_intervals_are_those_of_the_metrics(tmp_path):
    """Evaluations of no valid sample have nothing to show; the bars reach from the lower to the upper bound."""
    metrics = tmp_path / "metrics.jsonl"
    file, before = MetricsFile(metrics, 0), {"accuracy": 0.1, "ci_low": 0.05, "ci_high": 0.3}
    plots = Kept(tmp_path / "plots", 0, metrics, 1, lambda: before)
    file.metrics({"reward/mean": 0.5, "policy/entropy": float("nan")}, 1)
    file.metrics({"reward/mean": 1.5, "eval/accuracy": 0.5, "eval/ci_low": 0.4, "eval/ci_high": 0.8}, 2)
    nothing = dict.fromkeys(("eval/accuracy", "eval/ci_low", "eval/ci_high"), float("nan"))
    file.metrics({"reward/mean": 1.0, **nothing}, 3)
    plots.close()
    assert drawn(plots) == [[1, 0.5], [2, 1.5], [3, 1.0]] and drawn(plots, 2) == []
    (shown,) = plots.figures["curves.png"].axes[0].containers
    bars = [segment.tolist() for segment in shown.lines[2][0].get_segments()]
    assert bars == [[[0, pytest.approx(0.05)], [0, 0.3]], [[2, pytest.approx(0.4)], [2, 0.8]]]


def test_each_picture_reads_what_is_new(tmp_path):
    """Old lines are damaged on purpose; a line that is being written waits for the next picture."""
    metrics = tmp_path / "metrics.jsonl"
    file = MetricsFile(metrics, 0)
    plots = Kept(tmp_path / "plots", 0, metrics, 1, lambda: None)
    file.metrics({"reward/mean": 0.5}, 1)
    plots.metrics({}, 1)
    size = metrics.stat().st_size
    with metrics.open("r+b") as old:
        old.write(b"#" * (size - 1))
    file.metrics({"reward/mean": 0.25}, 2)
    with metrics.open("ab") as half:
        half.write(b'{"step": 3, "rewa')
    plots.metrics({}, 2)
    assert drawn(plots) == [[1, 0.5], [2, 0.25]]
    with metrics.open("ab") as rest:
        rest.write(b'rd/mean": 0.75}\n')
    plots.metrics({}, 3)
    assert drawn(plots) == [[1, 0.5], [2, 0.25], [3, 0.75]]


def test_a_full_disk_leaves_the_last_whole_picture(tmp_path, full_disk, warnings, make_rollout):
    metrics, folder = tmp_path / "metrics.jsonl", tmp_path / "plots"
    MetricsFile(metrics, 0).metrics({"reward/mean": 0.1}, 1)
    loggers = Loggers([Plots(folder, 0, metrics, 1, lambda: None)])
    loggers.metrics({}, 1)
    before = (folder / "curves.png").read_bytes()
    with full_disk(1000):
        loggers.rollouts([make_rollout([1], [5], total=1.0)], None, 1)
        loggers.metrics({}, 1)
        loggers.close()
    assert len(warnings()) == 1
    assert names(folder) == {"curves.png"} and (folder / "curves.png").read_bytes() == before
