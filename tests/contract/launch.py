"""A script of this folder as several real processes, over gloo."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from children import environment

ROOT, HERE = Path(__file__).parents[2], Path(__file__).parent


def launch(script: str, processes: int, *words: object, seconds: int) -> None:
    """`script WORDS` under torchrun; fails with what it said, also where it takes longer."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    done = subprocess.run(
        ["timeout", "-k", "10", str(seconds), *torchrun, str(HERE / script), *map(str, words)],
        cwd=ROOT,
        env=environment(PYTHONPATH=f"{ROOT}:{HERE}:{HERE.parent}", OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]


def run_rank(main: Callable[..., None]) -> None:
    """The whole life of a rank's process: it leaves without taking Python down.

    Caches of DTensor and DeepSpeed hold the ended process group, whose threads abort an interpreter that ends.
    """
    main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)
