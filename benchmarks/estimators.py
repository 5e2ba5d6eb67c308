"""Every advantage estimator on the tiny addition task, where their losses differ: curves and a table.

    python benchmarks/estimators.py                        # three seeds of each; about half a minute a run
    python benchmarks/estimators.py --seeds 1 --only gspo  # a quick look

The model of examples/tiny_addition.py learns one-digit addition through train.py, with the estimator's own defaults
and the learning rate of examples/tiny_addition.sh. A rollout step of 16 prompts x 16 samples is four train batches and
is gone through twice, so that seven of its eight optimizer steps are off-policy: on-policy most estimators have one and
the same gradient. Runs are made in turns, one seed of all and then the next, so that a busy machine disturbs all alike.

A figure for each estimator goes to docs/images/estimators/<name>.png: sampled reward over steps, each seed smoothed by
the mean of the last five steps; the line is the mean over the seeds, the band goes from the lowest to the highest. The
table on stdout has the mean reward of the first and of the last ten steps, and in brackets the lowest and highest seed.

Runs are kept in outputs/estimators; one that is whole there, with the same number of steps, is not made again. So more
seeds can be added later; delete the folder where the code has changed. Run it from the repository root.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lightrft.args.estimators import estimator_names  # noqa: E402  (imports no torch)

FLAGS = """--reward_fn last_number --prompt_max_len 8 --max_new_tokens 4 --max_len 12
 --rollout_batch_size 16 --n_samples_per_prompt 16 --train_batch_size 64 --max_epochs 2
 --micro_train_batch_size 64 --micro_rollout_batch_size 16 --top_p 1
 --actor_learning_rate 1.5e-4 --lr_scheduler constant --save_interval 0 --plot_every 0"""
OWN = {"gae": "--critic_learning_rate 1e-3"}  # flags beside the defaults, which are for large models
ENDS, WINDOW = 10, 5  # steps at both ends that the table compares; steps that a curve is smoothed over
BLUE = "#1f77b4"


def make_model(folder: Path) -> None:
    if not (folder / "model" / "tokenizer.json").is_file():
        subprocess.run([sys.executable, ROOT / "examples/tiny_addition.py", "--out", folder], check=True)


def train(name: str, seed: int, steps: int, out: Path) -> Path:
    """The folder of a whole run, made now where it is not there."""
    folder = out / f"{name}-{steps}-steps-seed-{seed}"
    if (folder / "summary.json").is_file():
        return folder
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was interrupted
    start, began = out / "start", time.monotonic()
    where = ["--pretrain", start / "model", "--prompt_data", start / "train.jsonl", "--save_path", folder]
    which = ["--advantage_estimator", name, "--seed", seed, "--max_steps", steps]
    words = [*where, *which, *FLAGS.split(), *OWN.get(name, "").split()]
    done = subprocess.run(
        [sys.executable, ROOT / "train.py", *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{name}, seed {seed}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    print(f"{name}, seed {seed}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return folder


def read(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "logs" / "metrics.jsonl").read_text().splitlines()]


def rewards(run: Sequence[dict[str, Any]]) -> list[float]:
    return [row["reward/mean"] for row in run]


def smoothed(values: Sequence[float]) -> list[float]:
    """At each step the mean of the last WINDOW ones, or of as many as there are."""
    return [fmean(values[max(0, end - WINDOW) : end]) for end in range(1, len(values) + 1)]


def draw(name: str, curves: Sequence[Sequence[float]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4, 2.6), layout="constrained")
    axis = figure.subplots()
    steps = range(1, len(curves[0]) + 1)
    middle, *edges = zip(*[(fmean(at), min(at), max(at)) for at in zip(*curves, strict=True)], strict=True)
    axis.fill_between(steps, *edges, color=BLUE, alpha=0.25, linewidth=0)
    axis.plot(steps, middle, color=BLUE)
    seeds = f"{len(curves)} seed{'s' if len(curves) > 1 else ''}"
    axis.set(title=f"{name}, {seeds}", xlabel="step", ylabel="sampled reward", ylim=(0, 1))
    axis.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=90, metadata={"Software": None})


def span(values: Sequence[float]) -> str:
    middle = f"{fmean(values):.3f}"
    return middle if len(values) == 1 else f"{middle} [{min(values):.3f}, {max(values):.3f}]"


def row(name: str, runs: Sequence[list[dict[str, Any]]]) -> str:
    first = [fmean(rewards(run)[:ENDS]) for run in runs]
    last = [fmean(rewards(run)[-ENDS:]) for run in runs]
    clipped = fmean(step.get("policy/clip_frac", 0.0) for run in runs for step in run)
    return f"| `{name}` | {span(first)} | {span(last)} | {clipped:.3f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the tiny addition model with every estimator, off-policy.")
    parser.add_argument("--seeds", type=int, default=3, help="runs per estimator (3)")
    parser.add_argument("--steps", type=int, default=60, help="steps of a run (60)")
    parser.add_argument("--only", nargs="+", choices=estimator_names(), default=estimator_names(), help="some of them")
    parser.add_argument("--out", type=Path, default=Path("outputs/estimators"), help="folder of the runs")
    parser.add_argument("--figures", type=Path, default=Path("docs/images/estimators"), help="folder of the figures")
    args = parser.parse_args()
    make_model(args.out / "start")
    runs: dict[str, list[list[dict[str, Any]]]] = {name: [] for name in args.only}
    for seed in range(1, args.seeds + 1):
        for name, found in runs.items():
            found.append(read(train(name, seed, args.steps, args.out)))
    print(f"| estimator | first {ENDS} steps | last {ENDS} steps | tokens clipped |\n|---|---|---|---|")
    for name, found in runs.items():
        draw(name, [smoothed(rewards(run)) for run in found], args.figures / f"{name}.png")
        print(row(name, found))


if __name__ == "__main__":
    main()
