"""The benchmarks of the training step run in a tiny size, and all contestants come to the same gradient."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def told(script: str, *words: str) -> list[str]:
    """The lines that a benchmark prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, str(ROOT / "benchmarks" / script), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_every_layout_comes_to_the_same_gradient():
    shown, head, *rows = told("train_step.py", "--size", "tiny", "--rounds", "1", "--only", "padded", "all")
    assert "products" in shown and head.endswith("grad norm")
    norms = {row[:24].strip(): row.split()[-1] for row in rows}
    assert norms.keys() == {"padded", "all"} and norms["padded"] == norms["all"] != "0.000000"


@pytest.mark.slow
def test_growth_is_told_for_samples_tokens_and_ranks():
    _, *rows = told("train_step.py", "--size", "tiny", "--rounds", "1", "--growth", "1", "2")
    assert [row.split()[0] for row in rows] == ["samples", "tokens", *["ranks,"] * 8, "ranks"]
    assert all(float(row.split()[-1]) > 0 for row in rows)


@pytest.mark.slow
def test_the_script_for_a_gpu_runs_anywhere():
    device, _, *rows = told("gpu_train.py", "--tiny", "--steps", "1")
    assert device.startswith("CPU") and [row for row in rows if row.startswith("the head alone")]
    ran = {row[:32].strip(): row[32:].split() for row in rows if row.startswith(("plain", "twice", "fused"))}
    assert len(ran) == 9 and all(len(numbers) == 6 for numbers in ran.values()), rows
