"""Runs of the real program on the tiny model: in this process, or as `python train.py` where one has to be killed."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from children import environment
from flags_over import flags_over

from lightrft.cli import main

ROOT = Path(__file__).parents[2]
DEADLINE_S = 120  # of a started process; far above what it needs, so that a hang ends in a failure

BASE = """--pretrain tiny --prompt_data add.jsonl --eval_data eval.jsonl --reward_fn last_number
 --prompt_max_len 16 --max_len 24 --rollout_batch_size 4 --n_samples_per_prompt 4 --train_batch_size 16
 --micro_train_batch_size 8 --micro_rollout_batch_size 4 --actor_learning_rate 1e-3 --plot_every 0"""


REWARDS = '''
import json
import math
import os
import time
from pathlib import Path

from lightrft.rewards.rules import last_number


def length(responses, **_):
    """Varies from sample to sample, so that every group has something to learn from."""
    return [len(response) + 0.1 * sum(map(ord, response)) for response in responses]


def slow(responses, references):
    time.sleep(0.1)
    return [last_number(r, a) + 0.01 * len(r) for r, a in zip(responses, references)]


def spy(responses, prompts, references, rollouts):
    seen = {"prompts": [p[-1]["content"] for p in prompts], "responses": responses}
    with Path("seen.jsonl").open("a") as file:
        file.write(json.dumps({**seen, "tokens": [rollout.response_ids for rollout in rollouts]}) + "\\n")
    return [last_number(r, a) for r, a in zip(responses, references)]


def raises(responses):
    raise KeyError("no such key")


def nan(responses):
    return [math.nan] * len(responses)


def nan_for_some(responses):
    return [math.nan if i % 4 == 0 else 0.1 * sum(map(ord, r)) for i, r in enumerate(responses)]


def too_few(responses):
    return [1.0] * (len(responses) - 1)


def texts(responses):
    return ["good"] * len(responses)
'''


def prepare(folder: Path, tiny_folder: Path) -> Path:
    """The folder with the tiny model, its data and a few reward files."""
    for name, source in {"tiny": "model", "add.jsonl": "train.jsonl", "eval.jsonl": "eval.jsonl"}.items():
        (folder / name).symlink_to(tiny_folder / source)
    (folder / "shaped.py").write_text(REWARDS)
    return folder


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def problems(self) -> list[str]:
        """The lines on stderr, without what libraries say there."""
        return [line for line in self.err.splitlines() if line.startswith("error: ")]


def words(flags: str, base: str = BASE) -> list[str]:
    return flags_over(base, flags)


def train(flags: str, base: str = BASE) -> Ended:
    """`python train.py <base> <flags>` in this process and folder."""
    return call(words(flags, base))


def call(argv: list[str], program: str = "text") -> Ended:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = main(program, argv)
        except SystemExit as stopped:  # --help
            code = int(stopped.code or 0)
    return Ended(code, out.getvalue(), err.getvalue())


def start(flags: str, folder: Path, base: str = BASE) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *words(flags, base)],
        cwd=folder,
        env=environment(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_steps(process: subprocess.Popen, save_path: Path, steps: int) -> None:
    """Returns when `steps` steps are in metrics.jsonl."""
    metrics, end = save_path / "logs" / "metrics.jsonl", time.monotonic() + DEADLINE_S
    while time.monotonic() < end and process.poll() is None:
        if metrics.is_file() and metrics.read_text().count("\n") >= steps:
            return
        time.sleep(0.002)
    process.kill()
    raise AssertionError(f"{steps} steps were never reached:\n{process.communicate()[1][-2000:]}")


def rows(save_path: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what may differ between two runs."""
    return [{name: value for name, value in row.items() if not name.startswith("perf/")} for row in all_rows(save_path)]


def all_rows(save_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (save_path / "logs" / "metrics.jsonl").read_text().splitlines()]


def samples(save_path: Path) -> list[dict[str, Any]]:
    """The trajectories that were saved, in their order."""
    found = sorted((save_path / "logs" / "trajectories").glob("*.jsonl"))
    return [json.loads(line) for path in found for line in path.read_text().splitlines()]


def weights(save_path: Path) -> bytes:
    return (save_path / "model.safetensors").read_bytes()


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def assert_same_run(left: Path, right: Path) -> None:
    assert rows(left) == rows(right)
    assert weights(left) == weights(right)
    assert read_json(left / "summary.json") == read_json(right / "summary.json")
