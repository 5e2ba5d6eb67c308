"""Rows with and without images take the plain loop's step, on any number of ranks, under every strategy."""

from __future__ import annotations

import pytest
import torch
from images import CASES, FAMILIES, Rows, load, turn
from launch import launch
from plain import logprobs
from policies import named, plain_steps, settings
from vision_models import save_tiny


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {family: save_tiny(family, tmp_path_factory.mktemp(family)) for family in FAMILIES}


@pytest.fixture(scope="module")
def plain(folders):
    """(family, what is frozen) -> the moves of the plain loop's step; each row goes through the model by itself."""
    found = {}

    def moves(family: str, frozen: str):
        if (family, frozen) not in found:
            rows, model = Rows(folders[family]), load(folders[family], frozen)
            other = load(folders[family], frozen, seed=1)
            with torch.no_grad():
                reference = [logprobs(other, sample, 0.8) for sample in rows.samples]
            before = named(model)
            loss = settings(kl_coef=0.05, reference=reference)
            parts = [type("Part", (), {"rows": range(12)})]
            plain_steps(model, rows.samples, loss, parts, learning_rate=1.0)
            found[family, frozen] = {name: value - before[name] for name, value in named(model).items()}
        return found[family, frozen]

    return moves


@pytest.fixture(scope="module", params=(2, 3))
def dealt(request, folders, tmp_path_factory):
    out = tmp_path_factory.mktemp("images") / "found.pt"
    launch("images.py", request.param, out, *folders.values(), seconds=300)
    return dict(zip(FAMILIES, torch.load(out), strict=True))


def is_off(found, wanted) -> float:
    """The largest difference of any parameter's move, relative to the largest move."""
    largest = max(float(value.abs().max()) for value in wanted.values())
    assert largest > 1e-4
    return max(float((found[name] - wanted[name]).abs().max()) for name in wanted) / largest


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.strategy} {case.micro} {case.more}".strip())
@pytest.mark.parametrize("family", FAMILIES)
def test_on_one_rank(world, folders, plain, family, case):
    found = turn(world, case, folders[family], Rows(folders[family]))
    assert is_off(found, plain(family, case.more.replace("--no-share_prompts", ""))) < 2e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_on_several(dealt, plain, family):
    for case, found in zip(CASES, dealt[family], strict=True):
        assert is_off(found, plain(family, case.more.replace("--no-share_prompts", ""))) < 2e-5, case
