"""One process group for the contract tests of a file, and the policies and rollouts that they start from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest
from plain import Sample
from policies import Trained, as_rollout, make_samples, prepare

from lightrft.ranks.base import World
from lightrft.ranks.launch import join_world, leave_world
from lightrft.types import Rollout


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Of a file: runs of other files (tests/e2e) in this process leave the world that they find."""
    yield join_world()
    leave_world()


@pytest.fixture(autouse=True)
def _joined(world: World) -> None:
    """As runs within a test do."""
    join_world()


@pytest.fixture(autouse=True)
def _float16(monkeypatch: pytest.MonkeyPatch) -> None:
    """DeepSpeed refuses float16 on a processor that has no instructions for it; torch computes it all the same."""
    from deepspeed.accelerator import get_accelerator

    monkeypatch.setattr(get_accelerator(), "is_fp16_supported", lambda: True)


@pytest.fixture
def trained(world: World) -> Callable[..., Trained]:
    """trained(flags, seed=0, reference_seed=None, precision=None)"""
    return partial(prepare, world)


@pytest.fixture
def samples() -> list[Sample]:
    return make_samples()


@pytest.fixture
def rollouts(samples: list[Sample]) -> list[Rollout]:
    return [as_rollout(sample) for sample in samples]
