"""Each test gets a folder of its own to work in, with the tiny model, its data and a few reward files."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

REWARDS = '''
import json
import math
import os
import time
from pathlib import Path

from lightrft.rewards.rules import last_number


def length(responses, **_):
    """Varies from sample to sample, so that every group has something to learn from."""
    return [len(response) + 0.1 * sum(map(ord, response)) for response in responses]


def slow(responses, references):
    time.sleep(0.1)
    return [last_number(r, a) + 0.01 * len(r) for r, a in zip(responses, references)]


def spy(responses, prompts, references):
    with Path("seen.jsonl").open("a") as file:
        file.write(json.dumps({"prompts": [p[-1]["content"] for p in prompts], "responses": responses}) + "\\n")
    return [last_number(r, a) for r, a in zip(responses, references)]


def raises(responses):
    raise KeyError("no such key")


def nan(responses):
    return [math.nan] * len(responses)


def nan_for_some(responses):
    return [math.nan if i % 4 == 0 else 0.1 * sum(map(ord, r)) for i, r in enumerate(responses)]


def too_few(responses):
    return [1.0] * (len(responses) - 1)


def texts(responses):
    return ["good"] * len(responses)
'''


@pytest.fixture
def here(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tiny").symlink_to(tiny_folder / "model")
    (tmp_path / "add.jsonl").symlink_to(tiny_folder / "train.jsonl")
    (tmp_path / "eval.jsonl").symlink_to(tiny_folder / "eval.jsonl")
    (tmp_path / "shaped.py").write_text(REWARDS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def _signals():
    """A run listens to signals; pytest wants its own back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
