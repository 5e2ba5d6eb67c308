"""What a test of failures takes: every strategy with its class, and calls that fail."""

from __future__ import annotations

import pytest

from lightrft.strategy.deepspeed import DeepSpeedStrategy
from lightrft.strategy.fsdp2 import FSDP2Strategy
from lightrft.strategy.one_process import OneProcess

STRATEGIES = {"--fsdp": OneProcess, "--fsdp --bf16": FSDP2Strategy, "--zero_stage 2 --bf16": DeepSpeedStrategy}
each_library = pytest.mark.parametrize("strategy", [flags for flags in STRATEGIES if "--bf16" in flags])


def breaks(what, at, error=ZeroDivisionError("injected")):  # noqa: B008
    """The `at`-th call fails as a bug or a driver would."""
    calls = []

    def broken(*arguments, **more):
        calls.append(1)
        if len(calls) == at:
            raise error
        return what(*arguments, **more)

    return broken
