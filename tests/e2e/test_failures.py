"""Turns that fail for good, and signals: one line, and nothing that was learned is lost."""

from __future__ import annotations

import io
import os
import sys

import pytest
import torch
from failing import breaks, each_library
from refusals import failed
from runs import assert_same_run, files, read_json, rows, train, weights, words

from lightrft.cli import main
from lightrft.strategy.one_process import OneProcess
from lightrft.update.score import Scorer

RANDOM = """
import random
from pathlib import Path


def down_after(steps):
    metrics = Path("cut/logs/metrics.jsonl")
    return Path("down").exists() and metrics.is_file() and metrics.read_text().count("\\n") >= steps


def lucky(responses):
    drawn = [len(response) + random.random() for response in responses]
    if down_after(3):
        raise ConnectionError("the reward server is down")
    return drawn


def held_out_fails(responses):
    drawn = [len(response) + random.random() for response in responses]
    return [] if len(responses) == 23 and down_after(1) else drawn


def held_out_fails_undrawn(responses):
    return [] if len(responses) == 23 and down_after(1) else [float(sum(map(ord, text))) for text in responses]
"""
FLAGS = "--max_steps 6 --train_batch_size 8 --save_interval 0 --reward_running_norm --quiet"


@pytest.fixture(autouse=True)
def _files(here):
    (here / "lucky.py").write_text(RANDOM)


@each_library
def test_a_reward_that_fails_for_good_loses_nothing(here, strategy):
    """It drew random numbers before it failed: they are as if the turn had never begun."""
    flags = f"{strategy} {FLAGS} --reward_fn lucky.py:lucky"
    (here / "down").touch()
    out = failed(f"{flags} --save_path cut", "every reward of step 4 is invalid", "the reward server is down")
    kept = "the state after step 3 is kept: cut/checkpoints/step_000003; go on with --load_checkpoint"
    assert kept in out.splitlines()
    assert failed(f"{flags} --save_path cut --load_checkpoint", "step 4 is invalid").splitlines()[-1] == kept
    (here / "down").unlink()
    assert "resumed from step 3" in train(f"{flags} --save_path cut --load_checkpoint").out
    assert train(f"{flags} --save_path whole").code == 0
    assert_same_run(here / "cut", here / "whole")


def test_an_evaluation_that_fails_for_good_loses_nothing(here):
    """After the second step's learning: the step counts, its line is written, and only its evaluation is missing."""
    flags = f"--fsdp {FLAGS} --reward_fn lucky.py:held_out_fails --eval_steps 2"
    (here / "down").touch()
    out = failed(f"{flags} --save_path cut", "--reward_fn lucky.py:held_out_fails", "0 values")
    assert "the state after step 2 is kept: cut/checkpoints/step_000002; go on with --load_checkpoint" in out
    (here / "down").unlink()
    assert train(f"{flags} --save_path cut --load_checkpoint").code == 0
    assert [row["step"] for row in rows(here / "cut")] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows(here / "cut") if "eval/accuracy" in row] == [4, 6]
    assert set(read_json(here / "cut/summary.json")["eval"]) == {"before", "after"}


def test_a_last_evaluation_that_failed_is_made_up_for(here):
    flags = f"--fsdp {FLAGS} --max_steps 2 --reward_fn lucky.py:held_out_fails --save_path cut"
    (here / "down").touch()
    assert "the state after step 2 is kept" in failed(flags, "0 values")
    (here / "down").unlink()
    ended = train(f"{flags} --load_checkpoint")
    assert ended.code == 0 and "resumed from step 2" in ended.out
    assert set(read_json(here / "cut/summary.json")["eval"]) == {"before", "after"}


def test_the_last_evaluation_of_a_run_that_went_on_is_of_its_last_step(here):
    """Not of the end before, where the new one fails: here at its fourth step."""
    flags = f"--fsdp {FLAGS} --reward_fn lucky.py:held_out_fails_undrawn --lr_scheduler constant --save_path"
    assert train(f"{flags} cut --max_steps 2 --save_steps 1").code == 0
    (here / "down").touch()
    failed(f"{flags} cut --max_steps 4 --load_checkpoint", "0 values")
    (here / "down").unlink()
    assert train(f"{flags} cut --max_steps 4 --load_checkpoint").code == 0
    assert train(f"{flags} whole --max_steps 4").code == 0
    assert read_json(here / "cut/summary.json") == read_json(here / "whole/summary.json")


CASES = {  # what breaks, at which call, and what is kept then: two optimizer steps a turn
    "the first turn": (Scorer, "to_batch", 1, None),
    "scoring": (Scorer, "to_batch", 3, 2),
    "the first backward pass of a turn": (OneProcess, "backward", 5, 2),
    "the first optimizer step of a turn": (OneProcess, "step", 5, "lost"),
    "the second optimizer step of a turn": (OneProcess, "step", 6, "lost"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_kept_depends_on_whether_weights_had_changed(here, monkeypatch, case):
    cls, name, at, kept = CASES[case]
    flags = "--fsdp --max_steps 3 --train_batch_size 8 --save_interval 0 --reward_fn shaped.py:length --save_path cut"
    with monkeypatch.context() as patch:
        patch.setattr(cls, name, breaks(getattr(cls, name), at))
        patch.setattr("sys.stdout", said := io.StringIO())
        with pytest.raises(ZeroDivisionError, match="injected"):
            main(argv=words(flags))
    checkpoints = sorted(path.name for path in (here / "cut").glob("checkpoints/*"))
    last = said.getvalue().splitlines()[-1]
    if kept == 2:
        assert checkpoints == ["latest", "step_000002"] and "the state after step 2 is kept" in last
        assert train(f"{flags} --load_checkpoint").code == 0
        assert train(flags.replace("cut", "whole")).code == 0
        assert_same_run(here / "cut", here / "whole")
    else:
        assert not checkpoints
        assert ("what was learned since the last checkpoint is lost" in last) == (kept == "lost")


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")]
)
def test_too_little_memory_is_one_line_and_loses_nothing(here, monkeypatch, error):
    monkeypatch.setattr(OneProcess, "backward", breaks(OneProcess.backward, 3, error))
    flags = "--fsdp --max_steps 3 --save_interval 0 --reward_fn shaped.py:length --save_path run"
    out = failed(flags, "out of memory: ", str(error) or "MemoryError", "--micro_train_batch_size")
    assert "the state after step 1 is kept: run/checkpoints/step_000001" in out


# Signals


def interrupting(times: int) -> str:
    return f"""
import os
import signal


def ctrl_c(responses):
    if interrupts and len(responses) == 16:
        interrupts.pop()
        for _ in range({times}):
            os.kill(os.getpid(), signal.SIGINT)
    return [len(response) + 0.1 * sum(map(ord, response)) for response in responses]


interrupts = [1]
"""


def test_one_interrupt_saves_and_two_stop_at_once(here):
    flags = "--fsdp --max_steps 3 --save_interval 0 --quiet"
    (here / "once.py").write_text(interrupting(1))
    (here / "twice.py").write_text(interrupting(2))
    ended = train(f"{flags} --save_path once --reward_fn once.py:ctrl_c")
    assert ended.code == 0 and "stopped by SIGINT after step 1; go on with --load_checkpoint" in ended.out
    assert (here / "once/checkpoints/step_000001").is_dir()
    ended = train(f"{flags} --save_path twice --reward_fn twice.py:ctrl_c")
    assert ended.code == 1 and "stopped at once; --load_checkpoint goes on" in ended.err
    assert "Traceback" not in ended.err + ended.out
    assert files(here / "twice") == {"logs/run.json", "logs/metrics.jsonl"}


def test_readers_of_both_streams_who_go_early_end_nothing(here, monkeypatch):
    """As by `2>&1 | head -1`: the first warning of that has nowhere to go either."""
    for name in ("stdout", "stderr"):
        reader, writer = os.pipe()
        os.close(reader)
        monkeypatch.setattr(sys, name, open(writer, "w"))  # noqa: SIM115
    assert main(argv=words("--fsdp --max_steps 2 --save_path run")) == 0
    assert len(rows(here / "run")) == 2 and weights(here / "run")


# Full disks


# Checkpoints that are damaged, or another model's


# What the system refuses elsewhere


def test_an_error_of_the_system_is_one_line_wherever_it_comes_from(here, monkeypatch):
    """A lost mount, say: while the model is built, and in the middle of the second turn."""
    lost = OSError(116, "Stale file handle", "/data/model")
    with monkeypatch.context() as patch:
        patch.setattr("lightrft.build.trainer.load_model", breaks(None, 1, lost))
        failed("--fsdp --max_steps 2 --save_path run", "Stale file handle (/data/model); --load_checkpoint goes on")
    monkeypatch.setattr(Scorer, "to_batch", breaks(Scorer.to_batch, 2, lost))
    out = failed("--fsdp --max_steps 2 --save_interval 0 --save_path run", "Stale file handle (/data/model)")
    assert "the state after step 1 is kept" in out
