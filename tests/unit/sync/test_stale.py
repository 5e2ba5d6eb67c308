from __future__ import annotations

import pytest

from lightrft.models.fingerprint import MODULUS
from lightrft.sync.stale import differing, stale

SENT = {"embed": 5, "q": 10, "k": MODULUS - 4, "v": 1, "head": 5}
HELD = {("embed",): 5, ("q", "k", "v"): 7, ("head",): 5}
STARTED = {("embed",): 1, ("q", "k", "v"): 2, ("head",): 1}


def found(held, others=None):
    return stale(SENT, held, started=STARTED, copies={"head"}, others=others or {})


def test_what_was_fused_is_the_sum_of_its_parts():
    """10 - 4 + 1 = 7 modulo 2^64."""
    assert differing(SENT, HELD) == [] and found(HELD) is None


def test_a_tensor_that_was_never_sent_is_not_what_was_sent():
    assert differing({"embed": 5}, HELD) == [("q", "k", "v"), ("head",)]


@pytest.mark.parametrize(
    ("changed", "cause", "begins"),
    [
        ({("q", "k", "v"): 2}, "stale tensor", "q + k + v: 1 of the engine's 3 tensors are not those that it was sent"),
        ({("q", "k", "v"): 8, ("embed",): 6}, "stale tensor", "embed and 1 more: 2 of the engine's 3 tensors"),
        ({("head",): 1}, "tied head", "head is not what the engine was sent"),
        (STARTED, "wrong checkpoint reloaded", "3 of the engine's 3 tensors are not those that it was sent, but those"),
        ({("embed",): 1, ("head",): 1}, "wrong checkpoint reloaded", "2 of the engine's 3 tensors are not"),
    ],
)
def test_what_it_looks_like(changed, cause, begins):
    finding = found({**HELD, **changed})
    assert finding.cause == cause and finding.text.startswith(begins)


def test_another_precision_is_one_in_which_all_that_differ_are_equal():
    held = {("embed",): 50, ("q", "k", "v"): 70, ("head",): 50}
    half = {"embed": 50, "q": 60, "k": 6, "v": 4, "head": 50}
    assert found(held, {"fp16": half | {"v": 5}, "bf16": half}).text.endswith(
        "it holds them in bf16; check --engine_dtype"
    )
    assert found(held, {"fp16": half | {"v": 5}}).cause == "stale tensor"
