"""Who holds the memory: the engine while the run generates, the trainer while it scores and learns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from lightrft.errors import error_text, warn
from lightrft.ranks.together import together
from lightrft.rollouts.engines.base import EngineFailed, InferenceEngine
from lightrft.sync.weights import WeightSync

State = Literal["generate", "rest", "score", "learn"]


class Placement:
    """Four states, which the loop enters one after another; nobody else calls sleep, wake or push.

        generate    the engine is awake and holds the policy's newest weights; evaluations happen here too
        rest        the engine sleeps and keeps them: a checkpoint is written, and the policy stays as it is
        score       the engine sleeps without weights; the policy and the reference score what was generated
        learn       the policy changes: what the engine had is old from here on

    A run starts as if it had learned before: whatever the policy was loaded from, the engine gets it before it
    generates. A state out of order is our own mistake, an AssertionError.
    sleeps: else the engine keeps its memory all the time (`--disable_engine_sleep`). after_sync: is told the version
    that the engine got, when it can generate.
    """

    def __init__(
        self,
        engine: InferenceEngine,
        sync: WeightSync,
        *,
        sleeps: bool = True,
        after_sync: Callable[[int], None] | None = None,
    ) -> None:
        self.engine, self.sync, self.sleeps, self.after_sync = engine, sync, sleeps, after_sync
        self.state: State = "learn"
        self.version: int | None = None  # of the policy that the engine has

    def generate(self, version: int) -> None:
        """version: that of the policy, which is the number of steps done. An engine that fails is replaced, once."""
        if self.state != "generate":
            kept = self.state == "rest"
            self.version = self.version if kept else version
            self._enter("generate", after=("rest", "score", "learn"))
            try:
                self._hand_over(kept=kept)
            except EngineFailed as failed:
                warn(f"step {version + 1}: {failed}; trying once more on a fresh engine")
                self.renew()
        assert version == self.version, f"version {version} of a policy that has not learned since {self.version}"

    def renew(self) -> None:
        """The engine failed: all ranks put a fresh one in its place, which is awake, and gets the same weights."""
        assert self.state == "generate" and self.version is not None, "only an engine that generates can fail"
        self._restart()
        self._hand_over(kept=False)

    def score(self) -> None:
        self._enter("score", after=("generate",))
        self._sleep(keep_weights=False)  # a sync comes before they are asked for

    def rest(self) -> None:
        """The engine sleeps, if it does not: a checkpoint gathers whole parameters."""
        if self.state == "generate":
            self._enter("rest", after=("generate",))
            self._sleep(keep_weights=True)

    def learn(self) -> None:
        self._enter("learn", after=("score",))

    def close(self) -> None:
        """From any state, at the end of the run. What the run ended with counts, and not what its engine says then."""
        try:
            self.engine.close()
        except Exception as error:
            warn(f"the engine could not be closed: {error_text(error, most=200)}")

    def give_up(self) -> None:
        """The run ends with a failure, maybe the engine's own: it is not asked for anything any more."""
        self.close()
        if self.state == "generate":
            self._enter("score", after=("generate",))

    def _hand_over(self, *, kept: bool) -> None:
        assert self.version is not None
        self._wake("weights")
        if not kept:
            self.sync.push(self.version)
        self._wake("kv_cache")  # only now: beside old and new weights there may be no room for it
        if not kept and self.after_sync is not None:
            self.after_sync(self.version)

    def _restart(self) -> None:
        with together(self.sync.everyone):
            self.engine.restart()

    def _wake(self, what: Literal["weights", "kv_cache"]) -> None:
        if self.sleeps:
            with together(self.sync.everyone):
                self.engine.wake(what)

    def _sleep(self, *, keep_weights: bool) -> None:
        if not self.sleeps:
            return
        try:
            with together(self.sync.everyone):
                self.engine.sleep(keep_weights=keep_weights)
        except EngineFailed as failed:
            warn(f"{failed}; a fresh engine takes its place")
            self._restart()
            with together(self.sync.everyone):
                self.engine.sleep(keep_weights=False)
            self.state = "score"  # it has no weights to keep

    def _enter(self, state: State, *, after: tuple[State, ...]) -> None:
        assert self.state in after, f"{state} comes after {' or '.join(after)}, not after {self.state}"
        self.state = state
