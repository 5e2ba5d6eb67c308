"""Each test gets a folder of its own to work in, with the tiny model, its data and a few reward files."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from runs import prepare

from lightrft.ranks.launch import leave_world


@pytest.fixture
def here(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(prepare(tmp_path, tiny_folder))
    return tmp_path


@pytest.fixture(autouse=True)
def _leaves_no_trace():
    """A run listens to signals, and pytest wants its own back; a trainer that is built and never runs stays joined."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    leave_world()
