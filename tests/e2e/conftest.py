"""Each test gets a folder of its own to work in, with the tiny model, its data and a few reward files."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from runs import REWARDS

from lightrft.ranks.launch import leave_world


@pytest.fixture
def here(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tiny").symlink_to(tiny_folder / "model")
    (tmp_path / "add.jsonl").symlink_to(tiny_folder / "train.jsonl")
    (tmp_path / "eval.jsonl").symlink_to(tiny_folder / "eval.jsonl")
    (tmp_path / "shaped.py").write_text(REWARDS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def _leaves_no_trace():
    """A run listens to signals, and pytest wants its own back; a trainer that is built and never runs stays joined."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    leave_world()
