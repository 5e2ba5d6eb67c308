"""Who holds the memory: the engine while the run generates, the trainer while it scores and learns."""

from __future__ import annotations

from typing import Literal

from lightrft.rollouts.engines.base import InferenceEngine
from lightrft.sync.weights import WeightSync

State = Literal["generate", "score", "learn"]


class Placement:
    """Three states, which the loop enters one after another; nobody else calls sleep, wake or push.

        generate    the engine is awake and holds the policy's newest weights; evaluations happen here too
        score       the engine sleeps; the policy and the reference score what was generated, a checkpoint is written
        learn       the policy changes: what the engine holds is old from here on

    A run starts as if it had learned before: whatever the policy was loaded from, the engine gets it before it
    generates. A state out of order is our own mistake, an AssertionError.
    """

    def __init__(self, engine: InferenceEngine, sync: WeightSync) -> None:
        self.engine, self.sync = engine, sync
        self.state: State = "learn"
        self.version: int | None = None  # of the policy that the engine got last

    def generate(self, version: int) -> None:
        """version: that of the policy, which is the number of steps done."""
        asleep = self.state != "generate"
        self._enter("generate", after=("generate", "score", "learn"))
        if asleep:  # and whoever sleeps need not keep its weights
            self.engine.wake("weights")
            self.sync.push(version)
            self.engine.wake("kv_cache")  # only now: beside old and new weights there may be no room for it
            self.version = version
        assert version == self.version, f"version {version} of a policy that has not learned since {self.version}"

    def score(self) -> None:
        self._enter("score", after=("generate",))
        self.engine.sleep(keep_weights=False)

    def rest(self) -> None:
        """The engine sleeps, if it does not: a checkpoint gathers whole parameters."""
        if self.state == "generate":
            self.score()

    def learn(self) -> None:
        self._enter("learn", after=("score",))

    def close(self) -> None:
        """From any state, at the end of the run."""
        self.engine.close()

    def _enter(self, state: State, *, after: tuple[State, ...]) -> None:
        assert self.state in after, f"{state} comes after {' or '.join(after)}, not after {self.state}"
        self.state = state
