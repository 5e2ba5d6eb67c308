"""A loan inside a step, a checkpoint after a skipped one: every strategy and precision, on one and two processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from between_steps import CHECKS, COLUMNS
from policies import arguments, own_strategy

SCRIPT, ROOT = Path(__file__).with_name("between_steps.py"), Path(__file__).parents[2]


@pytest.mark.parametrize(("flags", "precision"), COLUMNS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_on_one_process(world, tmp_path, check, flags, precision):
    check(own_strategy(arguments(flags), world, precision), tmp_path)


def test_on_two_processes(tmp_path):
    """In one launch."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        ["timeout", "-k", "10", "200", *launch, str(SCRIPT), str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{SCRIPT.parent}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
