from __future__ import annotations

import json

import pytest
from PIL import Image

from lightrft.track.base import Loggers
from lightrft.track.metrics_file import MetricsFile
from lightrft.track.plots import Plots
from lightrft.track.run_record import differences, file_hashes, make_record, write_json
from lightrft.track.tensorboard import TensorBoard


class Recorder:
    def __init__(self):
        self.seen = []

    def metrics(self, values, step):
        self.seen.append(("metrics", step))

    def rollouts(self, rollouts, step):
        self.seen.append(("rollouts", step))

    def close(self):
        self.seen.append(("close",))


class Broken(Recorder):
    def metrics(self, values, step):
        super().metrics(values, step)
        raise OSError("disk\nfull")


def test_a_logger_that_raises_is_reported_once_and_the_others_go_on(capsys):
    first, broken, last = Recorder(), Broken(), Recorder()
    loggers = Loggers([first, broken, last])
    for step in (1, 2):
        loggers.metrics({}, step)
        loggers.rollouts([], step)
    loggers.close()
    everything = [("metrics", 1), ("rollouts", 1), ("metrics", 2), ("rollouts", 2), ("close",)]
    assert first.seen == last.seen == everything and broken.seen == [("metrics", 1)]
    captured = capsys.readouterr()
    assert captured.err == "warning: Broken failed and is off from now on (OSError: disk full)\n" and not captured.out


def test_a_user_s_interrupt_is_not_a_broken_logger():
    class Interrupted(Recorder):
        def metrics(self, values, step):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Loggers([Interrupted()]).metrics({}, 1)


def scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return {name: [(e.step, e.value) for e in found.Scalars(name)] for name in found.Tags()["scalars"]}


def test_tensorboard_reads_back_what_was_logged(tmp_path):
    board = TensorBoard(tmp_path, resumed=0)
    for step in (1, 2, 3):
        board.metrics({"reward/mean": step / 4, "policy/lr": 0.5}, step)
    board.close()
    assert scalars(tmp_path) == {
        "reward/mean": [(1, 0.25), (2, 0.5), (3, 0.75)],
        "policy/lr": [(1, 0.5), (2, 0.5), (3, 0.5)],
    }


def test_tensorboard_hides_the_points_beyond_the_resumed_step(tmp_path, monkeypatch):
    for number, (resumed, steps) in enumerate([(0, (1, 2, 3)), (1, (2,))]):
        # event files of one second would have one name's prefix and be read in the order of host and process
        monkeypatch.setattr("tensorboard.summary.writer.event_file_writer.time.time", lambda n=number: 1e9 + n)
        board = TensorBoard(tmp_path, resumed)
        for step in steps:
            board.metrics({"reward/mean": float(10 * number + step)}, step)
        board.close()
        monkeypatch.undo()
    assert scalars(tmp_path) == {"reward/mean": [(1, 1.0), (2, 12.0)]}


def test_plots_are_png_files_at_every_nth_step_and_at_the_end(tmp_path, make_rollout):
    metrics, folder = tmp_path / "metrics.jsonl", tmp_path / "plots"
    file, before = MetricsFile(metrics, 0), {"accuracy": 0.1, "ci_low": 0.05, "ci_high": 0.2}
    plots = Plots(folder, metrics, every=2, before=lambda: before)
    plots.close()  # nothing to show yet
    assert list(folder.iterdir()) == []
    rollouts = [make_rollout([1], [5] * n, total=1.0) for n in (1, 4, 4)]
    for step in (1, 2, 3):
        values = {"reward/mean": 0.1 * step, "rollout/length_mean": 3.0, "policy/entropy": float("nan")}
        values |= {"eval/accuracy": 0.5, "eval/ci_low": 0.4, "eval/ci_high": 0.6} if step == 2 else {}
        file.metrics(values, step)
        plots.metrics(values, step)
        plots.rollouts(rollouts, step)
        expected = {1: set(), 2: {"curves.png", "length_000002.png"}}.get(step)
        assert expected is None or {entry.name for entry in folder.iterdir()} == expected
    (folder / "curves.png").unlink()
    plots.close()
    assert {entry.name for entry in folder.iterdir()} == {"curves.png", "length_000002.png"}
    for entry in folder.iterdir():
        with Image.open(entry) as image:
            assert image.format == "PNG" and min(image.size) > 100
            assert len(image.convert("L").getcolors(256) or []) > 10  # something was drawn


def record(**changes):
    made = {
        "arguments": {"seed": {"value": 1, "source": "default"}, "quiet": {"value": False, "source": "default"}},
        "hashes": {"a.jsonl": "0123456789abcdef"},
        "packages": {"torch": "2.13.0"},
    }
    return {**made, **changes}


def test_differences_name_what_changed_and_leave_out_what_a_resumption_changes():
    changed = record(
        arguments={"seed": {"value": 2, "source": "flag"}, "quiet": {"value": True, "source": "flag"}},
        hashes={"a.jsonl": "fedcba9876543210"},
        packages={"torch": "2.14.0", "vllm": "1.0"},
    )
    assert differences(record(), changed) == [
        "--seed was 1, is 2",
        "hash of a.jsonl was 0123456789ab, is fedcba987654",
        "version of torch was 2.13.0, is 2.14.0",
        "version of vllm was None, is 1.0",
    ]
    assert differences(record(), record(runtime={"device": "cuda"})) == []
    other_source = record(arguments={**record()["arguments"], "seed": {"value": 1, "source": "flag"}})
    assert differences(record(), other_source) == []


def test_a_record_survives_json_without_a_difference(tmp_path):
    data = tmp_path / "train.jsonl"
    data.write_text("{}\n")
    values = {"adam_betas": [0.9, 0.95], "warmup": None}
    arguments = {name: {"value": value, "source": "default"} for name, value in values.items()}
    made = make_record(arguments, [str(data), "hub/name"], {"device": "cpu"})
    write_json(tmp_path / "run.json", made)
    assert differences(json.loads((tmp_path / "run.json").read_text()), made) == []
    assert list(made["hashes"]) == [str(data)] and made["runtime"] == {"device": "cpu"}
    assert {"torch", "transformers", "numpy"} <= made["packages"].keys()
    assert not any("KEY" in name or "TOKEN" in name for name in made["environment"])


def test_a_hash_is_of_the_contents(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    sha = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2's example
    assert file_hashes([str(tmp_path / "a")]) == {str(tmp_path / "a"): sha}


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "run.json"
    write_json(path, {"a": 1})

    class Odd:
        def __str__(self):
            raise ValueError("cannot be written")

    with pytest.raises(ValueError, match="cannot"):
        write_json(path, {"a": Odd()})
    assert json.loads(path.read_text()) == {"a": 1} and [e.name for e in tmp_path.iterdir()] == ["run.json"]
