"""The engine vllm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightrft.errors import Refused
from lightrft.rollouts.engines.base import InferenceEngine, Sampling


def unsupported(sampling: Sampling) -> str | None:
    """What it cannot do of that."""
    return "vllm cannot sample the first token at a temperature of its own" if sampling.first_temperature else None


def settings_fault(engine_kwargs: Sequence[str]) -> str | None:
    """What is wrong with settings of --engine_kwargs."""


def make(*parts: Any) -> InferenceEngine:
    raise Refused("--engine_type vllm is not built yet; use --engine_type local")
