from __future__ import annotations

import json
import math

import pytest

from lightrft.track.base import Loggers
from lightrft.track.metrics_file import MetricsFile, read_metrics


def test_one_object_per_step_and_whole_at_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path, resumed=0)
    file.metrics({"reward/mean": 0.1, "perf/step_s": 2.0}, 1)
    assert path.read_text() == '{"step": 1, "reward/mean": 0.1, "perf/step_s": 2.0}\n'  # before it is closed
    file.metrics({"reward/mean": 0.2}, 2)
    file.close()
    assert read_metrics(path) == [{"step": 1, "reward/mean": 0.1, "perf/step_s": 2.0}, {"step": 2, "reward/mean": 0.2}]


def test_numbers_that_json_does_not_know_become_null(tmp_path):
    file = MetricsFile(tmp_path / "metrics.jsonl", resumed=0)
    file.metrics({"a": math.nan, "b": math.inf, "c": -math.inf, "d": 0.0}, 1)
    file.close()

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    line = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(line, parse_constant=refuse) == {"step": 1, "a": None, "b": None, "c": None, "d": 0.0}


def test_resuming_takes_back_what_lies_beyond_the_checkpoint_and_a_cut_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = [{"step": step, "reward/mean": step / 10} for step in (1, 2, 3, 4)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 5, "rewa')
    assert read_metrics(path) == rows
    file = MetricsFile(path, resumed=2)
    assert read_metrics(path) == rows[:2]
    file.metrics({"reward/mean": 9.0}, 3)
    file.close()
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3] and read_metrics(path)[2]["reward/mean"] == 9.0
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_cut_last_line_of_the_resumed_step_itself_does_not_swallow_the_next(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}')
    file = MetricsFile(path, resumed=2)
    file.metrics({}, 3)
    file.close()
    assert [row["step"] for row in read_metrics(path)] == [1, 3]


def test_no_file_is_no_rows(tmp_path):
    assert read_metrics(tmp_path / "none.jsonl") == []


def test_a_full_disk_leaves_whole_lines_and_is_reported_once(tmp_path, full_disk, warnings):
    path = tmp_path / "metrics.jsonl"
    loggers = Loggers()
    loggers.add(MetricsFile, path, 0)
    loggers.metrics({"reward/mean": 0.1}, 1)
    whole = path.read_text()
    with full_disk(len(whole) + 10):  # ten bytes of the next line would still fit
        loggers.metrics({"reward/mean": 0.2}, 2)
    assert path.read_text() == whole
    loggers.metrics({"reward/mean": 0.3}, 3)
    loggers.close()
    (line,) = warnings()
    assert line.startswith("warning: MetricsFile failed and is off from now on (OSError: ")
    assert [row["step"] for row in read_metrics(path)] == [1]


def test_a_line_that_was_taken_back_hides_none_that_follow(tmp_path, full_disk):
    file = MetricsFile(tmp_path / "metrics.jsonl", 0)
    file.metrics({"a": 1.0}, 1)
    with full_disk((tmp_path / "metrics.jsonl").stat().st_size + 10), pytest.raises(OSError):
        file.metrics({"a": 2.0}, 2)
    file.metrics({"a": 3.0}, 3)
    file.close()
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1, "a": 1.0}, {"step": 3, "a": 3.0}]


def test_lines_that_a_power_cut_left_are_no_rows_and_hide_none(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n\0\0\0\n[1]\n{"step": "2"}\n{"a": 1}\n\xff\n{"step": 2}\n')
    assert read_metrics(path) == [{"step": 1}, {"step": 2}]
    file = MetricsFile(path, resumed=2)
    file.metrics({}, 3)
    file.close()
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3}\n'


def test_a_fresh_start_sets_every_earlier_file_aside(tmp_path):
    for step in (1, 2, 3):
        file = MetricsFile(tmp_path / "metrics.jsonl", resumed=0)
        file.metrics({"start": step}, 1)
        file.close()
    found = {path.name: read_metrics(path)[0]["start"] for path in tmp_path.iterdir()}
    assert found == {"metrics.jsonl": 3, "metrics.jsonl.old": 1, "metrics.jsonl.old2": 2}
