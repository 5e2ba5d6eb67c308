"""A job that is killed again and again, while it works and while it saves, ends with the bits of one left alone.

By hand: `pytest -m slow tests/e2e/test_kills.py` kills 20 times in a row, under both strategies, on one rank and two.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from children import environment
from runs import ROOT, read_json, rows, weights, words

ALONE, TOGETHER = [sys.executable], [sys.executable, "-m", "torch.distributed.run", "--standalone"]
DEADLINE_S = 300  # of one start; far above what it needs
FLAGS = """--save_steps 1 --reward_fn shaped.py:slow --train_batch_size 8 --micro_train_batch_size 4 --save_trajectories
 --quiet --load_checkpoint"""


class Job:
    """`train.py` on so many ranks, started in `folder`."""

    def __init__(self, flags: str, ranks: int, folder: Path) -> None:
        launcher = ALONE if ranks == 1 else [*TOGETHER, f"--nproc_per_node={ranks}"]
        self.output = (folder / "output.txt").open("a")
        self.process = subprocess.Popen(
            [*launcher, str(ROOT / "train.py"), *words(flags)],
            cwd=folder,
            env=environment(OMP_NUM_THREADS="1"),
            stdout=self.output,
            stderr=subprocess.STDOUT,
        )

    def kill(self) -> None:
        """Every process of it, at one moment: no one is left to say goodbye."""
        everyone = [psutil.Process(self.process.pid)]
        everyone += everyone[0].children(recursive=True)
        for process in everyone:
            process.kill()
        psutil.wait_procs(everyone)
        self.output.close()

    def end(self) -> None:
        code = self.process.wait(DEADLINE_S)
        self.output.close()
        assert code == 0, Path(self.output.name).read_text()[-3000:]


def killed(job: Job, save_path: Path, while_saving: bool) -> bool:
    """Kills at a random moment after the next step, or of the next save; False where the job was done before."""
    metrics, before, end = save_path / "logs/metrics.jsonl", lines(save_path), time.monotonic() + DEADLINE_S
    steps = random.choice((1, 2))
    while job.process.poll() is None:
        assert time.monotonic() < end, "the job gets nowhere"
        saving = while_saving and any(save_path.glob("checkpoints/.step_*.tmp"))
        if saving or (not while_saving and metrics.exists() and lines(save_path) >= before + steps):
            time.sleep(random.uniform(0, 0.03 if saving else 0.3))
            job.kill()
            return True
        time.sleep(0.001)
    return False


def lines(save_path: Path) -> int:
    metrics = save_path / "logs/metrics.jsonl"
    return metrics.read_text().count("\n") if metrics.exists() else 0


CASES = [
    pytest.param("--zero_stage 2", 2, 3, id="zero, 2 ranks"),
    *(
        pytest.param(strategy, ranks, 20, id=f"{strategy}, {ranks} ranks, 20 kills", marks=pytest.mark.slow)
        for strategy in ("--fsdp", "--zero_stage 2")
        for ranks in (1, 2)
    ),
]


@pytest.mark.parametrize("strategy, ranks, kills", CASES)
def test_killed_again_and_again_a_run_ends_with_the_same_bits(here, strategy, ranks, kills, record_property):
    flags = f"{strategy} {FLAGS} --max_steps {2 * kills + 3}"
    left = 0
    for number in range(kills):
        job = Job(f"{flags} --save_path cut", ranks, here)
        assert killed(job, here / "cut", while_saving=number % 2 == 1), (here / "output.txt").read_text()[-3000:]
        left += any((here / "cut").glob("checkpoints/.step_*.tmp"))
    record_property("kills_that_cut_a_save", left)
    Job(f"{flags} --save_path cut", ranks, here).end()
    Job(f"{flags} --save_path whole", ranks, here).end()
    cut, whole = here / "cut", here / "whole"
    assert rows(cut) == rows(whole) and weights(cut) == weights(whole)
    assert read_json(cut / "summary.json") == read_json(whole / "summary.json")
    for path in sorted((whole / "logs/trajectories").iterdir()):  # the prompts, and what was sampled
        assert (cut / "logs/trajectories" / path.name).read_bytes() == path.read_bytes(), path.name
