"""Where weights reach the engine."""

from __future__ import annotations

from lightrft.rollouts.engines.base import InferenceEngine
from lightrft.strategy.base import Handle, Strategy


class WeightSync:
    """After every step of the loop the engines hold version `step` of the policy.

    An engine that samples from the training module itself shares its weights: it only learns the version's number.
    """

    def __init__(self, strategy: Strategy, engines: list[InferenceEngine]) -> None:
        self.strategy, self.engines = strategy, engines

    def push(self, policy: Handle, version: int) -> None:
        for engine in self.engines:
            params = () if engine.shares_weights else self.strategy.full_params(policy)
            engine.update_weights(params, version)
