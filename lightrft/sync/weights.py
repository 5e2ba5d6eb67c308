"""Where weights reach the engine."""

from __future__ import annotations

from lightrft.rollouts.engines.base import InferenceEngine
from lightrft.strategy.base import Handle, Strategy


class WeightSync:
    """Brings the policy's weights to the engine.

    An engine that samples from the training module itself shares its weights: it only learns the version's number.
    """

    def __init__(self, strategy: Strategy, policy: Handle, engine: InferenceEngine) -> None:
        self.strategy, self.policy, self.engine = strategy, policy, engine

    def push(self, version: int) -> None:
        """version: the steps of the loop that the policy has learned from."""
        params = () if self.engine.shares_weights else self.strategy.full_params(self.policy)
        self.engine.update_weights(params, version)
