"""When held-out prompts are answered in a run."""

from __future__ import annotations

from dataclasses import asdict

from lightrft.evaluation import EvalResult, Evaluator
from lightrft.loop.placement import Placement
from lightrft.loop.progress import Progress, describe
from lightrft.track.clock import Clock
from lightrft.track.console import Console


class Evaluations:
    """Before training, every `every` steps, and at the end; never without held-out prompts."""

    def __init__(
        self,
        evaluator: Evaluator | None,
        every: int | None,
        placement: Placement,
        progress: Progress,
        clock: Clock,
        console: Console,
    ) -> None:
        self.evaluator, self.every, self.placement = evaluator, every, placement
        self.progress, self.clock, self.console = progress, clock, console

    def before(self) -> dict[str, float] | None:
        """Metrics of the policy that nothing has trained yet; a resumed run has them, or will never have them."""
        if self.evaluator is None or self.progress.step or self.progress.eval_before is not None:
            return None
        result = self._evaluate(self.evaluator)
        self.progress.eval_before = asdict(result)
        self.console.unless_quiet(f"before training: {describe(self.progress.eval_before)}")
        return result.metrics()

    def when_due(self) -> dict[str, float]:
        asked = self.every is not None and self.progress.step % self.every == 0
        if self.evaluator is None or not (asked or self.progress.done):
            return {}
        result = self._evaluate(self.evaluator)
        if self.progress.done:
            self.progress.eval_after = asdict(result)
        return {**result.metrics(), **self.evaluator.stats()}

    def after(self) -> None:
        """At the end, where that evaluation failed in the run before."""
        if self.evaluator is not None and self.progress.eval_after is None:
            self.progress.eval_after = asdict(self._evaluate(self.evaluator))

    def _evaluate(self, evaluator: Evaluator) -> EvalResult:
        self.placement.generate(self.progress.step)
        with self.clock("evaluate"):
            result = evaluator.evaluate()
        if not result.n:
            self.console.warn(f"step {self.progress.step}: held-out accuracy is {describe(asdict(result))}")
        return result
