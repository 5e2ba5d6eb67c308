"""What an engine has in memory at the moment, so that nothing is asked of it twice or out of order."""

from __future__ import annotations

from typing import Literal

What = Literal["weights", "kv_cache"]


class Presence:
    """An engine starts awake, with weights that nobody has pushed.

    It goes round: sleep -> wake("weights") -> pushed, unless the weights were kept -> wake("kv_cache") -> generate.
    Repeating a sleep or a wake is harmless; an order that would sample from weights that are not there is our own
    mistake, an AssertionError.
    """

    def __init__(self) -> None:
        self.there: set[What] = {"weights", "kv_cache"}
        self.pushed_once = False

    def sleep(self, *, keep_weights: bool) -> bool:
        """Whether there is something to give back."""
        was_awake = bool(self.there)
        self.there.clear()
        self.pushed_once &= keep_weights
        return was_awake

    def wake(self, what: What) -> bool:
        """Whether it was away."""
        assert what == "weights" or "weights" in self.there, "the KV cache wakes after the weights"
        was_away = what not in self.there
        self.there.add(what)
        return was_away

    def pushed(self) -> None:
        assert "weights" in self.there, "weights are pushed to an engine that is awake for them"
        self.pushed_once = True

    def check_ready(self) -> None:
        assert self.there == {"weights", "kv_cache"}, "the engine sleeps"
        assert self.pushed_once, "the engine has no weights yet: a sleep drops them, and a push brings them"
