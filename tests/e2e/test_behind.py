"""Checkpoints that are written behind the next steps, as on a GPU: the run and what it saves are the same."""

from __future__ import annotations

from functools import partial

import pytest
from runs import files, rows, train, weights

from lightrft.loop import checkpointing, writing

FLAGS = "--max_steps 4 --save_steps 1 --max_ckpt_num 9 --train_batch_size 8 --reward_fn shaped.py:length --quiet"


@pytest.fixture
def behind(monkeypatch):
    """Called, it makes runs write so."""

    def writer(*arguments, behind):
        return writing.Writer(*arguments, behind=True)

    return partial(monkeypatch.setattr, checkpointing, "Writer", writer)


@pytest.mark.parametrize("strategy", ("--fsdp", "--zero_stage 2"))
def test_checkpoints_are_the_same_to_the_bit(here, behind, strategy):
    assert train(f"{strategy} {FLAGS} --save_path whole").code == 0
    behind()
    assert train(f"{strategy} {FLAGS} --save_path run").code == 0
    run, whole = here / "run", here / "whole"
    assert rows(run) == rows(whole) and weights(run) == weights(whole)
    assert files(run) == files(whole)
    for name in sorted(name for name in files(whole) if name.startswith("checkpoints/") and "state." not in name):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name
    assert (
        "resumed from step 4 (run/checkpoints/step_000004)"
        in train(f"{strategy} {FLAGS} --save_path run --load_checkpoint").out
    )


def test_a_disk_that_refuses_ends_the_run_at_the_next_boundary(here, behind, monkeypatch):
    """The thread's error is the run's; what stood stands, and the run goes on from there."""
    behind()
    real = checkpointing.write_model_state

    def write(state, folder, rank):
        if "000002" in str(folder):
            raise OSError(28, "No space left on device")
        return real(state, folder, rank)

    with monkeypatch.context() as patch:
        patch.setattr(checkpointing, "write_model_state", write)
        ended = train(f"--fsdp {FLAGS} --save_path run")
    assert ended.code == 1 and len(ended.problems) == 1, ended
    assert "the checkpoint of step 2 could not be written: No space left on device (" in ended.problems[0]
    assert "run/checkpoints/step_000001 stands; make room and use --load_checkpoint" in ended.problems[0]
    assert sorted(path.name for path in (here / "run/checkpoints").iterdir()) == ["latest", "step_000001"]
    assert "resumed from step 1 " in train(f"--fsdp {FLAGS} --save_path run --load_checkpoint").out
