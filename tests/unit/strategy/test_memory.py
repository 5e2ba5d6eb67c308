"""Model states against sums worked out by hand for 7.6 * 10^9 parameters (ZeRO, arXiv:1910.02054, figure 1)."""

from __future__ import annotations

import pytest

from lightrft.strategy.memory import Layout, ModelStates
from lightrft.strategy.memory import model_states as states_of

SEVEN_B = 7_600_000_000
MIXED = {"half": True, "adam": True, "reference": False}
PLAIN = {"half": False, "adam": False}
ON_HOST = {"states_on_cpu": False, "adam_on_cpu": False, "ref_on_cpu": False}


def model_states(
    parameters: int,
    *,
    ranks: int,
    stage: int | None,
    half: bool,
    adam: bool,
    reference: bool,
    frozen: int = 0,
    critic: int = 0,
    average: bool = False,
    in_4_bits: int = 0,
    **layout,
) -> ModelStates:
    """Of the layout that no further flag changes, but for what `layout` says."""
    spread = ranks if stage in (None, 3) else 1
    kept = Layout(
        **{"ranks": ranks, "stage": stage, "shard_size": ranks, "zpg": 1, "ref_size": spread, **ON_HOST, **layout}
    )
    what = {"half": half, "adam": adam, "reference": reference, "frozen": frozen, "critic": critic}
    return states_of(parameters, kept, average=average, in_4_bits=in_4_bits, **what)


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
    assert model_states(10, ranks=1, stage=1, reference=False, **PLAIN).total == 10 * (4 + 4)
    assert model_states(10, ranks=1, stage=1, reference=True, **PLAIN).total == 10 * (4 + 4 + 4)
    assert model_states(80, ranks=8, stage=2, reference=True, **PLAIN).reference == 80 * 4
    assert model_states(80, ranks=8, stage=None, reference=True, **PLAIN).reference == 10 * 4


def test_what_one_process_gathers():
    """Nothing under stage 3; FSDP2 copies its shards, which measuring shows, in float32 too."""
    assert model_states(10, ranks=1, stage=3, **MIXED).gathered == 0
    assert model_states(10, ranks=1, stage=None, **MIXED).gathered == 10 * 2
    assert model_states(10, ranks=1, stage=None, reference=False, **PLAIN).gathered == 10 * 4
    assert model_states(10, ranks=8, stage=2, **MIXED).gathered == 0


def test_offloaded_shards_leave_the_gathered_copy():
    found = model_states(
        10, ranks=1, stage=None, half=True, adam=True, reference=True, states_on_cpu=True, ref_on_cpu=True
    )
    assert (found.total, found.host) == (10 * 2, 10 * (4 + 4 + 8 + 2))
    assert str(model_states(10**9, ranks=1, stage=1, **MIXED)) == "20 GB (weights 2, gradients 2, sums 4, optimizer 12)"


def test_weights_in_4_bits_are_whole_on_each_process():
    """Also where the rest is sharded, or in host memory: 10 others, of which 4 train."""
    for stage, host in ((1, False), (3, False), (None, False), (None, True)):
        how = {"ranks": 8, "stage": stage, "frozen": 6, "states_on_cpu": host, **MIXED}
        found, without = model_states(10, in_4_bits=52, **how), model_states(10, **how)
        assert (found.total - without.total, found.host) == (52, without.host)
    assert str(model_states(10**9, ranks=1, stage=1, in_4_bits=10**9, **MIXED)).endswith("optimizer 12, in 4 bits 1)")


def test_a_critic_is_a_second_model_that_learns_in_turn():
    """20 bytes a parameter for each of them, less the 16-bit gradients of the smaller one."""
    assert model_states(10, ranks=1, stage=1, critic=4, **MIXED).total == 10 * 20 + 4 * 18
    assert model_states(10, ranks=1, stage=1, critic=40, **MIXED).total == 10 * 18 + 40 * 20


@pytest.mark.parametrize(
    "stage, half, device, host",
    [
        (
            1,
            True,
            2 + 2 + 4,
            12 / 4 + 8 / 4,
        ),  # 16-bit weights and gradients, their sum; masters, moments, sum and buffer
        (2, True, 2 + 4 / 4, 12 / 4 + 8 / 4),
        (3, True, 2 / 4 + 2, 12 / 4 + 8 / 4),  # beside the engine's gathered copy
        (1, False, 4 + 4, 12 / 4 + 8 / 4),
        (None, True, 4 / 4 + 2, 8 / 4),  # the moments alone
    ],
)
def test_an_optimizer_in_host_memory(stage: int | None, half: bool, device: float, host: float):
    found = model_states(100, ranks=4, stage=stage, half=half, adam=True, reference=False, adam_on_cpu=True)
    assert (found.total, found.host) == (100 * device, 100 * host)


def test_copies_over_fewer_processes():
    """Of eight: two share FSDP2's shards, four the second copy of stage 3's weights, two the reference."""
    hybrid = model_states(80, ranks=8, stage=None, shard_size=2, **MIXED)
    assert (hybrid.weights, hybrid.gradients, hybrid.optimizer) == (40 * 4, 40 * 4, 40 * 8)
    assert model_states(80, ranks=8, stage=3, zpg=4, **MIXED).weights == 10 * 2 + 20 * 2
    shared = model_states(80, ranks=8, stage=2, half=True, adam=True, reference=True, ref_size=2)
    assert (shared.reference, shared.host) == (40 * 2, 0)
    apart = model_states(80, ranks=8, stage=2, half=True, adam=True, reference=True, ref_size=2, ref_on_cpu=True)
    assert (apart.reference, apart.host) == (0, 40 * 2)


@pytest.mark.parametrize(
    "stage, ranks, layout, device",
    [
        (1, 2, {}, True),
        (3, 4, {}, True),
        (None, 4, {}, True),
        (None, 4, {"adam_on_cpu": True}, True),  # the shards are the masters, and stay
        (2, 4, {"adam_on_cpu": True}, False),
        (None, 4, {"states_on_cpu": True}, False),
    ],
)
def test_an_average_lies_and_is_cut_as_the_masters_are(stage: int | None, ranks: int, layout: dict, device: bool):
    """Four bytes a parameter of the policy, none of the critic."""
    found, without = (
        model_states(80, ranks=ranks, stage=stage, critic=8, average=a, **MIXED, **layout) for a in (True, False)
    )
    more = 80 * 4 / ranks
    assert (found.total - without.total, found.host - without.host) == ((more, 0) if device else (0, more))


@pytest.mark.parametrize(
    "stage, half, weights, each",
    [
        (1, True, 2, (2, 4, 12 / 4)),  # whole 16-bit gradients, their sum; a share of master and moments
        (2, True, 2, (4 / 4, 0, 12 / 4)),
        (3, True, 2 / 4, (0, 4 / 4, 12 / 4)),
        (1, False, 4, (4, 0, 8 / 4)),
        (None, True, 4 / 4, (4 / 4, 0, 8 / 4)),
    ],
)
def test_what_does_not_train_has_weights_alone(stage: int | None, half: bool, weights: float, each: tuple):
    """Of 100 parameters 60 are frozen, on four processes; the reference and the gathered copy are of all of them."""
    found = model_states(100, frozen=60, ranks=4, stage=stage, half=half, adam=True, reference=True)
    gradients, sums, optimizer = each
    assert found.weights == 100 * weights
    assert (found.gradients, found.sums, found.optimizer) == (40 * gradients, 40 * sums, 40 * optimizer)
    alike = model_states(100, ranks=4, stage=stage, half=half, adam=True, reference=True)
    assert (found.reference, found.gathered) == (alike.reference, alike.gathered)


def test_what_does_not_train_is_not_averaged_and_needs_nothing_of_the_host():
    """A critic of 20 trains whole: masters, moments, sum and its buffer of 40 + 20, on the host of each of two."""
    found = model_states(
        100,
        frozen=60,
        critic=20,
        average=True,
        ranks=2,
        stage=2,
        half=True,
        adam=True,
        reference=False,
        adam_on_cpu=True,
    )
    assert found.host == (40 + 20) * (12 + 8) / 2 + 40 * 4 / 2
    assert (found.weights, found.gradients) == ((100 + 20) * 2, 40 * 4 / 2)
    assert model_states(100, frozen=90, critic=20, ranks=1, stage=1, **MIXED).gradients == 20 * 2, "of the larger one"


@pytest.mark.parametrize("half, compute", [(True, 2), (False, 4)])
def test_a_step_with_everything_whole(half: bool, compute: int):
    """Weights as they are computed with and float32 gradients of all that learns, beside the shards of both; then the
    engine's gathered copy is not there."""
    how = {"ranks": 4, "stage": None, "half": half, "adam": True, "reference": False}
    found = model_states(100, frozen=60, once_a_step=True, **how)
    assert found.whole == 100 * compute + 40 * 4
    assert found.total == 100 * 4 / 4 + 40 * 8 / 4 + 40 * 4 / 4 + found.whole
    critic = model_states(100, frozen=60, critic=80, once_a_step=True, **how)
    assert critic.whole == 80 * (compute + 4), "they take turns"
    moved = model_states(100, once_a_step=True, states_on_cpu=True, **how)
    assert moved.total == moved.whole == 100 * (compute + 4)
    assert model_states(100, **how).whole == 0


def test_masters_apart_are_the_optimizers():
    """16-bit shards, a float32 sum of gradients, master and moments; what is frozen is kept whole on the host."""
    found = model_states(100, frozen=60, ranks=4, stage=None, masters_apart=True, **MIXED)
    assert (found.weights, found.gradients, found.optimizer) == (100 * 2 / 4, 40 * 4 / 4, 40 * 12 / 4)
    assert (found.gathered, found.host) == (100 * 2, 60 * 4 / 4)
    moved = model_states(100, ranks=4, stage=None, masters_apart=True, adam_on_cpu=True, **MIXED)
    assert (moved.optimizer, moved.host) == (100 * 4 / 4, 100 * 8 / 4)
