"""Steps in which there is nothing to learn leave the model as it was, and the run goes on (algorithms S7.5, S14)."""

from __future__ import annotations

import pytest
import torch
from runs import all_rows, train
from safetensors.torch import load_file

CASES = {
    "no group varies": "--reward_fn one.py:one --dynamic_sampling --max_gen_batches 2",
    "only the first batch is valid": "--reward_fn one.py:then_nan --dynamic_sampling --max_gen_batches 2 --max_steps 1",
    "every response is cut off": "--reward_fn shaped.py:length --overlong_filter --max_new_tokens 1 --max_steps 1",
}
FUNCTIONS = """
def one(responses):
    return [1.0] * len(responses)


def then_nan(rollouts):
    return [1.0 if rollout.group < 4 else float("nan") for rollout in rollouts]
"""


@pytest.mark.parametrize("flags", CASES.values(), ids=CASES)
def test_a_run_without_anything_to_learn(here, flags):
    (here / "one.py").write_text(FUNCTIONS)
    ended = train(f"--fsdp --quiet --max_steps 2 --train_batch_size 8 {flags} --save_path run")
    assert ended.code == 0, ended.err
    found = all_rows(here / "run")
    assert [row["update/idle_steps"] for row in found] == [row["update/optimizer_steps"] for row in found]
    assert all(row["update/idle_steps"] >= 2 and row["update/skipped_steps"] == 0 for row in found)
    assert all(value is not None for row in found for value in row.values()), "no metric is NaN"
    before, after = (load_file(here / name / "model.safetensors") for name in ("tiny", "run"))
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_groups_that_do_not_vary_are_idle_rows_and_their_steps_are_not_idle(here):
    """As docs/metrics.md says; with a KL or entropy term in the loss their rows have a gradient, and none is idle."""
    (here / "one.py").write_text(FUNCTIONS)
    flags = "--fsdp --quiet --max_steps 1 --train_batch_size 8 --reward_fn one.py:one"
    for name, terms, rows in (("alone", "", 16), ("entropy", "--entropy_coef 0.01", None)):
        assert train(f"{flags} --init_kl_coef 0 {terms} --save_path {name}").code == 0
        (found,) = all_rows(here / name)
        assert (found["update/idle_steps"], found.get("update/idle_rows")) == (0, rows)
