"""What is done about a difference between engine and trainer: `--on_logprob_gap`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from lightrft.errors import RunFailed

AGAIN_AFTER = 50  # steps after which a cause that is still there is said again


@dataclass(frozen=True)
class Finding:
    """cause: two or three words, by which findings are told apart; text: what was seen, and what to do."""

    cause: str
    text: str

    def __str__(self) -> str:
        return f"{self.cause}: {self.text}"


@dataclass
class Alarm:
    """ends: whether a finding ends the run; else it is said once, and again every `AGAIN_AFTER` steps at most.

    Every rank has the same findings, at the same places.
    """

    ends: bool
    say: Callable[[str], None]
    said: dict[str, int] = field(default_factory=dict)

    def __call__(self, finding: Finding, step: int, *, between: bool = False) -> None:
        """between: after that step and before the next."""
        line = f"{'after ' if between else ''}step {step}: {finding}"
        if self.ends:
            raise RunFailed(f"{line} (--on_logprob_gap error)")
        last = self.said.get(finding.cause)
        if last is None or step >= last + AGAIN_AFTER:
            self.said[finding.cause] = step
            self.say(f"warning: {line}")

    def once(self, text: str) -> None:
        """What is no fault."""
        if text not in self.said:
            self.said[text] = 0
            self.say(f"notice: {text}")
