"""`--engine_dtype` in the real program: an engine of its own precision, told the newest weights at every step."""

from __future__ import annotations

import pytest
from runs import rows, train

FLAGS = "--max_steps 3 --reward_fn shaped.py:length --actor_learning_rate 1e-2 --top_p 1 --save_interval 0 --quiet"


def gaps(folder):
    return [row["mismatch/gap_mean"] for row in rows(folder)]


@pytest.mark.parametrize("strategy", ["--fsdp", "--no-fsdp"])
def test_another_precision_is_sampled_from_and_stays_new(here, strategy):
    """Rounding to bfloat16 is seen in the gap; weights of the step before would be seen far more."""
    assert train(f"{FLAGS} {strategy} --engine_dtype bf16 --save_path half").code == 0
    assert train(f"{FLAGS} {strategy} --save_path same").code == 0
    half, same = gaps(here / "half"), gaps(here / "same")
    assert max(same) < 1e-5 < 1e-4 < min(half) and max(half) < 0.05, (half, same)


def test_the_precision_of_training_is_no_copy(here):
    assert train(f"{FLAGS} --fsdp --engine_dtype fp32 --save_path asked").code == 0
    assert train(f"{FLAGS} --fsdp --save_path plain").code == 0
    asked, plain = (
        [{name: value for name, value in row.items() if not name.startswith("perf/")} for row in rows(here / folder)]
        for folder in ("asked", "plain")
    )
    assert asked == plain
