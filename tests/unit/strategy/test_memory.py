"""Model states against sums worked out by hand for 7.6 * 10^9 parameters (ZeRO, arXiv:1910.02054, figure 1)."""

from __future__ import annotations

import pytest

from lightrft.strategy.memory import model_states

SEVEN_B = 7_600_000_000
MIXED = {"half": True, "adam": True, "reference": False, "on_cpu": False}


@pytest.mark.parametrize(
    "stage, ranks, gigabytes",
    [
        (1, 1, 7.6 * 20),  # 2 weights + 2 gradients + 4 their float32 sum + 12 optimizer
        (1, 8, 7.6 * (2 + 2 + 4 + 12 / 8)),
        (2, 8, 7.6 * (2 + 4 / 8 + 12 / 8)),
        (3, 8, 7.6 * ((2 + 4 + 12) / 8 + 2)),  # beside the engine's gathered copy
        (None, 8, 7.6 * ((4 + 8) / 8 + 2)),  # FSDP2: the shards are the master copy
        (None, 1, 7.6 * (4 + 4 + 8)),
    ],
)
def test_bytes_of_mixed_precision(stage: int | None, ranks: int, gigabytes: float):
    found = model_states(SEVEN_B, ranks=ranks, stage=stage, **MIXED)
    assert found.total == pytest.approx(gigabytes * 1e9, rel=1e-12)


def test_single_precision_without_adam_and_with_a_reference():
    plain = {"half": False, "adam": False, "on_cpu": False}
    assert model_states(10, ranks=1, stage=1, reference=False, **plain).total == 10 * (4 + 4)
    assert model_states(10, ranks=1, stage=1, reference=True, **plain).total == 10 * (4 + 4 + 4)
    assert model_states(80, ranks=8, stage=2, reference=True, **plain).reference == 80 * 4
    assert model_states(80, ranks=8, stage=None, reference=True, **plain).reference == 10 * 4


def test_one_process_gathers_nothing():
    assert (
        model_states(10, ranks=1, stage=None, **MIXED).gathered
        == model_states(10, ranks=1, stage=3, **MIXED).gathered
        == 0
    )
    assert model_states(10, ranks=8, stage=2, **MIXED).gathered == 0


def test_offloaded_shards_leave_the_gathered_copy():
    found = model_states(10, ranks=1, stage=None, half=True, adam=True, reference=True, on_cpu=True)
    assert found.total == 10 * 2
    assert str(model_states(10**9, ranks=1, stage=1, **MIXED)) == "20 GB (weights 2, gradients 2, sums 4, optimizer 12)"


def test_a_critic_is_a_second_model_that_learns_in_turn():
    """20 bytes a parameter for each of them, less the 16-bit gradients of the smaller one."""
    assert model_states(10, ranks=1, stage=1, critic=4, **MIXED).total == 10 * 20 + 4 * 18
    assert model_states(10, ranks=1, stage=1, critic=40, **MIXED).total == 10 * 18 + 40 * 20
