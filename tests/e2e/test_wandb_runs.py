"""Runs with W&B on: how they are called, what is refused, and what a killed service or a signal does to them."""

from __future__ import annotations

import signal

import psutil
import pytest
from runs import rows, start, train, wait_for_steps
from wandb_files import wandb_runs, warnings

LIVE = "--fsdp --max_steps 60 --save_steps 50 --reward_fn shaped.py:slow --use_wandb counting --quiet"


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")


def test_names_in_wandb(here):
    names = "--use_wandb counting --wandb_org team --wandb_run_name my-first"
    assert train(f"--fsdp --max_steps 1 --save_path run {names} --quiet").code == 0
    (run,) = wandb_runs(here / "run")
    assert (run.project, run.entity, run.name) == ("counting", "team", "my-first")


def test_a_run_that_fails_is_marked_as_failed(here):
    ended = train("--fsdp --max_steps 3 --save_path run --use_wandb counting --reward_fn shaped.py:too_few --quiet")
    assert ended.code == 1
    (run,) = wandb_runs(here / "run")
    assert run.exit_code == 1


@pytest.mark.parametrize(
    ("flags", "mode", "said"),
    [
        ("--use_wandb counting", None, "set WANDB_API_KEY, or WANDB_MODE=offline"),
        (f"--use_wandb {'0123456789abcdef' * 2}01234567", "offline", "--use_wandb got what looks like an API key"),
        (f"--use_wandb a --wandb_org wandb_v1_{'Ab3' * 20}", "offline", "--wandb_org got what looks like an API key"),
    ],
)
def test_no_key_and_a_key_in_the_wrong_place_are_refused(here, monkeypatch, flags, mode, said):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE")
    if mode:
        monkeypatch.setenv("WANDB_MODE", mode)
    ended = train(f"--fsdp --save_path run {flags}")
    assert ended.code == 2 and len(ended.problems) == 1 and said in ended.err
    assert "0123456789abcdef" not in ended.out + ended.err and "Ab3Ab3" not in ended.out + ended.err
    assert not (here / "run").exists()


def test_a_killed_wandb_service_does_not_stop_the_run(here):
    process = start(f"{LIVE} --save_path run --max_steps 20", here)
    wait_for_steps(process, here / "run", 3)
    (service,) = [child for child in psutil.Process(process.pid).children() if child.name() == "wandb-core"]
    service.send_signal(signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert len(warnings(err)) == 1 and warnings(err)[0].startswith("warning: WandB failed and is off from now on (")
    assert "Traceback" not in err
    assert [row["step"] for row in rows(here / "run")] == list(range(1, 21))


def test_sigterm_still_saves_with_wandb_on(here):
    process = start(f"{LIVE} --save_path run", here)
    wait_for_steps(process, here / "run", 3)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and "stopped by SIGTERM after step" in out, err
    steps = [row["step"] for row in rows(here / "run")]
    assert len(steps) < 60 and (here / f"run/checkpoints/step_{steps[-1]:06d}").is_dir()
    (run,) = wandb_runs(here / "run")
    assert sorted(run.history)[1:] == steps and run.exit_code == 0
