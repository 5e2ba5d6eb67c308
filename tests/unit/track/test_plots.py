from __future__ import annotations

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
