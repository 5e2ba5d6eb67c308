"""Committed numbers of ten tiny steps: any later change of one shows here, and the commit that changes it says why.

Rewards, losses, gradient norms, learning rates and final weights of three estimators that together use every stage:
groups, KL in the loss, whitened returns with KL in the reward, a critic; two optimizer steps a
rollout, AdamW, clipping.

    WRITE_GOLDEN_RUN=1 python -m pytest tests/e2e/test_golden_run.py      # writes them anew
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from runs import rows, train
from safetensors.torch import load_file

GOLDEN = Path(__file__).parent / "golden"
ESTIMATORS = {
    "group_norm": "--init_kl_coef 0.05 --entropy_coef 0.01",
    "reinforce": "--init_kl_coef 0.02 --gamma 0.99",
    "gae": "--init_kl_coef 0.02 --critic_learning_rate 3e-4 --max_epochs 2",
}
FLAGS = "--fsdp --max_steps 10 --train_batch_size 8 --lr_warmup_steps 3 --save_interval 0 --quiet"
FLAGS += " --actor_learning_rate 1e-4 --adam_epsilon 1e-3"
REWARD = "--reward_fn shaped.py:length --reward_running_norm"  # varies in every group: all have something to learn from

# The model is warmed up anew on every machine, and float32 rounds otherwise on other processors. Measured between
# AVX-512 and no vector instructions at all: up to 1.8e-3 relative. Two runs on one machine are equal.
RELATIVE, ABSOLUTE = 4e-3, 1e-4
SHOWN = 6  # digits of what is committed
EACH = 997  # every so many weights of a tensor are committed, beside its norm


def numbers(folder: Path) -> dict[str, object]:
    """What is compared: every metric of every step, and of the weights some entries and the norm of each tensor."""
    found = {"steps": [{name: rounded(value) for name, value in row.items()} for row in rows(folder)]}
    for part in ("", "critic/"):
        if (folder / part / "model.safetensors").is_file():
            tensors = load_file(folder / part / "model.safetensors")
            found |= {f"{part}{name}": sketch(tensor) for name, tensor in sorted(tensors.items())}
    return found


def sketch(tensor) -> list[float]:
    return [rounded(tensor.double().norm().item()), *map(rounded, tensor.flatten()[::EACH].tolist())]


def rounded(value: float) -> float:
    return float(f"{value:.{SHOWN}g}")


def flags(estimator: str) -> str:
    return f"{FLAGS} {REWARD} --advantage_estimator {estimator} {ESTIMATORS[estimator]} --save_path run"


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_ten_steps_give_the_committed_numbers(here, estimator):
    assert train(flags(estimator)).code == 0
    found, file = numbers(here / "run"), GOLDEN / f"{estimator}.json"
    if os.environ.get("WRITE_GOLDEN_RUN"):
        file.write_text(json.dumps(found, separators=(",", ":")) + "\n")
    golden = json.loads(file.read_text())
    assert found.keys() == golden.keys() and len(found["steps"]) == 10
    for number, (row, expected) in enumerate(zip(found.pop("steps"), golden.pop("steps"), strict=True), 1):
        assert row == pytest.approx(expected, rel=RELATIVE, abs=ABSOLUTE), f"step {number}"
    for name, expected in golden.items():
        assert found[name] == pytest.approx(expected, rel=RELATIVE, abs=ABSOLUTE), name
