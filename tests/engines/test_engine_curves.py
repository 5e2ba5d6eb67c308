"""The same run of examples/tiny_addition.sh through every engine: one reward curve, within the noise of seeds."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from statistics import fmean, stdev

import pytest
from children import environment
from test_engines import ROOT, python_of

STEPS, LAST = 60, 15
SEEDS = (1, 2, 3)


@pytest.fixture(scope="module")
def flags(tmp_path_factory) -> list[str]:
    start = tmp_path_factory.mktemp("start")
    subprocess.run([sys.executable, ROOT / "examples/tiny_addition.py", "--out", start], check=True)
    text = (ROOT / "examples/tiny_addition.sh").read_text()
    found = re.search(r"python train\.py \\\n(.*?)\"\$@\"", text, re.DOTALL)
    assert found
    words = shlex.split(found[1].replace("\\\n", " ").replace("$out/start", str(start)))
    place = words.index("--save_path")
    return [*words[:place], *words[place + 2 :], "--max_steps", str(STEPS), "--plot_every", "0", "--quiet"]


def rewards(kind: str, seed: int, flags: list[str], folder: Path) -> list[float]:
    command = [python_of(kind), ROOT / "train.py", *flags, "--engine_type", kind, "--seed", str(seed)]
    done = subprocess.run(
        [*map(str, command), "--save_path", str(folder)],
        env=environment(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    told = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert not told, told
    return [json.loads(line)["reward/mean"] for line in (folder / "logs/metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ("vllm", "sglang"))
def test_the_reward_rises_as_it_does_with_the_local_engine(kind, flags, tmp_path):
    """Means of the last steps, over seeds: the difference is within two standard errors of their spread."""
    ends = {
        name: [fmean(rewards(name, seed, flags, tmp_path / f"{name}{seed}")[-LAST:]) for seed in SEEDS]
        for name in ("local", kind)
    }
    print(ends)
    spread = max(stdev(each) for each in ends.values()) * (2 / len(SEEDS)) ** 0.5
    first = rewards("local", 9, [*flags, "--max_steps", "1"], tmp_path / "first")[0]
    assert min(map(min, ends.values())) > first + 0.1
    assert abs(fmean(ends[kind]) - fmean(ends["local"])) < 2 * max(spread, 0.01), ends
