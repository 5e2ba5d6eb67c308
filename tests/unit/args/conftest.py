"""Estimators of the tests' own, so that no expectation here moves with the real ones; one parser for all tests; what
becomes of command lines that are drawn at random."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from fuzz_results import Result, read_all

from lightrft.args import Args, command_line, estimators

PARSER = cache(command_line.build_parser)  # it keeps nothing of what it read, and takes half the time to build

GROUP_NORM = """
ESTIMATOR = Estimator(advantage=a, policy_loss=b, aggregation="seq-mean-token-mean", needs={"group"}, paper="x")
"""
GSPO = """
ESTIMATOR: Estimator = Estimator(
    advantage=a, policy_loss=b, aggregation="seq-mean-token-mean", needs={"group"},
    per_row=True, ignores={"loss_agg_mode"}, defaults={"clip_range": 3e-4, "clip_range_higher": 4e-4})
"""
CPGD = """
ESTIMATOR = Estimator(advantage=a, policy_loss=b, aggregation="token-mean", needs={"group"}, drift=c, kl="off",
    paper="x", defaults={"clip_range_higher": 0.2, "kl_target": 0.01})
"""
REINFORCE = """
ESTIMATOR = Estimator(advantage=a, policy_loss=b, aggregation="token-mean", kl="reward")
"""

GAE = """
ESTIMATOR = Estimator(advantage=a, policy_loss=b, aggregation="token-mean", needs={"critic"}, kl="reward")
"""


@pytest.fixture(autouse=True)
def estimator_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "estimators"
    folder.mkdir()
    for name, text in {
        "group_norm": GROUP_NORM,
        "gspo": GSPO,
        "reinforce": REINFORCE,
        "cpgd": CPGD,
        "gae": GAE,
        "_shared": "",
    }.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.setattr(estimators, "FOLDER", folder)
    return folder


@pytest.fixture(autouse=True)
def _one_parser(estimator_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parser = PARSER()
    monkeypatch.setattr(command_line, "build_parser", lambda: parser)


@pytest.fixture
def results() -> list[Result]:
    return read_all()


@pytest.fixture
def accepted(results: list[Result]) -> list[tuple[Result, Args]]:
    return [(result, result.args) for result in results if result.args is not None]


@pytest.fixture
def refused(results: list[Result]) -> list[Result]:
    return [result for result in results if result.args is None]
