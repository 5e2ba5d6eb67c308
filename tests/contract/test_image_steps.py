"""Rows with and without images take the plain loop's step, on any number of ranks, under every strategy."""

from __future__ import annotations

import pytest
import torch
from images import CASES, FAMILIES, ON_THREE, Rows, load, turn
from launch import launch
from plain import logprobs
from policies import named, plain_steps, settings
from vision_models import save_tiny

from lightrft.models.adapters import adapters_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("models")
    for family in FAMILIES:
        save_tiny(family, made / family)
    return made


def whole(model):
    """Its parameters, with adapters merged in."""
    adapters = adapters_of(model)
    return named(model) if adapters is None else dict(adapters.merged(named(model).items()))


@pytest.fixture(scope="module")
def plain(folder):
    """(family, what is frozen) -> the moves of the plain loop's step; each row goes through the model by itself."""
    found = {}

    def moves(family: str, frozen: str):
        if (family, frozen) not in found:
            rows, model = Rows(folder / family), load(folder / family, frozen)
            other = load(folder / family, frozen, seed=1)
            with torch.no_grad():
                reference = [logprobs(other, sample, 0.8) for sample in rows.samples]
            before = whole(model)
            loss = settings(kl_coef=0.05, reference=reference)
            parts = [type("Part", (), {"rows": range(12)})]
            plain_steps(model, rows.samples, loss, parts, learning_rate=100.0)
            found[family, frozen] = {name: value - before[name] for name, value in whole(model).items()}
        return found[family, frozen]

    return moves


@pytest.fixture(scope="module")
def dealt(folder, tmp_path_factory):
    """(processes, number of the case) -> what came of it."""
    found = {}
    for processes in (2, 3):
        out = tmp_path_factory.mktemp("images") / "found.pt"
        launch("images.py", processes, out, folder, seconds=300)
        found |= {(processes, number): moves for number, moves in torch.load(out).items()}
    return found


def is_off(found, wanted) -> float:
    """|found - wanted| / |wanted| over all parameters together: of gradients, since moves are a hundred times as large
    and roundings of the parameters are lost in them."""
    assert found.keys() == wanted.keys()
    off, size = (
        torch.stack([v.double().norm() for v in values]).norm()
        for values in ([found[name] - wanted[name] for name in wanted], wanted.values())
    )
    assert size > 0.1
    return float(off / size)


@pytest.mark.parametrize("family, case", CASES, ids=lambda value: str(value))
def test_on_one_rank(world, folder, plain, family, case):
    found = turn(world, case, folder / family, Rows(folder / family))
    assert is_off(found, plain(family, case.frozen)) < 1e-6


ON_SEVERAL = [*((2, number) for number in range(len(CASES))), *((3, number) for number in ON_THREE)]


@pytest.mark.parametrize("processes, number", ON_SEVERAL)
def test_on_several(dealt, plain, processes, number):
    family, case = CASES[number]
    found = dealt[processes, number]
    assert is_off(found, plain(family, case.frozen)) < 1e-6
