"""The loop: collect, score, learn, sync. One turn of it is a step."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lightrft.checkpointing import Checkpointer, Due
from lightrft.evaluation import EvalResult, Evaluator
from lightrft.prompts.sampler import PromptSampler
from lightrft.rewards.base import check_some_valid
from lightrft.rollouts.collector import Collector
from lightrft.rollouts.statistics import rollout_metrics
from lightrft.strategy.base import Handle
from lightrft.sync.weights import WeightSync
from lightrft.track.base import Loggers
from lightrft.track.clock import Clock
from lightrft.track.console import Console
from lightrft.track.profiler import Profiler
from lightrft.track.run_record import differences, write_json
from lightrft.types import Batch, Rollout
from lightrft.update.advantages import AdvantageStage
from lightrft.update.score import Scorer
from lightrft.update.step import Updater, UpdateReport


@dataclass
class Progress:
    """How far the run is; goes into every checkpoint."""

    total_steps: int
    step: int = 0
    reward_first: float | None = None
    reward_last: float | None = None
    eval_before: dict[str, Any] | None = None
    eval_after: dict[str, Any] | None = None

    @property
    def done(self) -> bool:
        return self.step >= self.total_steps

    def advance(self) -> int:
        self.step += 1
        return self.step

    def restore(self, state: dict[str, Any]) -> None:
        """Everything but total_steps, which the flags of the resumed run decide."""
        for name in ("step", "reward_first", "reward_last", "eval_before", "eval_after"):
            setattr(self, name, state[name])


class StopRequest:
    """SIGTERM and SIGINT ask for a stop at the next step boundary; a second SIGINT stops at once."""

    def __init__(self) -> None:
        self.name: str | None = None

    def listen(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: object) -> None:
        if self.name is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name
        again = "; once more to stop at once, unsaved" if number == signal.SIGINT else ""
        with suppress(OSError):  # a closed stderr must not keep the run from saving
            os.write(2, f"\n{self.name}: stopping after this step{again}\n".encode())  # print is not safe here


@dataclass
class Trainer:
    prompts: PromptSampler
    collector: Collector
    scorer: Scorer
    advantages: AdvantageStage
    updater: Updater
    sync: WeightSync
    policy: Handle
    evaluator: Evaluator | None
    eval_steps: int | None
    checkpointer: Checkpointer
    due: Due
    progress: Progress
    loggers: Loggers
    console: Console
    clock: Clock
    profiler: Profiler
    save_path: Path
    record: dict[str, Any]
    stop: StopRequest = field(default_factory=StopRequest)

    def fit(self) -> None:
        """Runs to the end, or to the first step boundary after a signal; then everything needed to go on is saved."""
        self.stop.listen()
        try:
            self._evaluate_before()
            while not self.progress.done and self.stop.name is None:
                with self.profiler(self.progress.step + 1):
                    self._turn()
            if self.progress.done:
                self._finish()
            else:
                self._stop_early()
        finally:
            self.close()

    def close(self) -> None:
        """Every way out of a run ends here."""
        self.loggers.close()
        for engine in self.sync.engines:
            engine.close()

    def _turn(self) -> None:
        step, episode = self.progress.step + 1, self.prompts.episode
        with self.clock("generate"):
            rollouts = self.collector.collect(self.prompts, step)
        check_some_valid(rollouts, step)
        with self.clock("score"):
            batch = self.scorer.to_batch(rollouts, self.collector.temperature(step))
        batch, shaped = self.advantages(batch)
        with self.clock("update"):
            for part in self.updater.partition(batch, step):
                self.updater.step(batch, part)
        learned = self.updater.report()
        adapted = self.advantages.kl.after_step(learned.metrics, len(rollouts), learned.taken)
        self.sync.push(self.policy, version=self.progress.advance())
        evaluated = self._evaluate_when_due()
        self._track(rollouts, batch, learned, {**self.collector.stats(), **shaped, **adapted, **evaluated})
        if self.due(step, episode, self.prompts.episode):
            self._save()

    def _track(self, rollouts: Sequence[Rollout], batch: Batch, update: UpdateReport, extra: dict[str, float]) -> None:
        step = self.progress.step
        metrics = {**rollout_metrics(rollouts), **update.metrics, **extra, "episode": self.prompts.episode}
        engines = {name: value for engine in self.sync.engines for name, value in engine.stats().items()}
        perf = {**self.clock.lap(), **update.perf, **engines, "perf/peak_memory_gib": _peak_memory()}
        sampled = sum(len(rollout.response_ids) for rollout in rollouts)
        perf["perf/tokens_per_s"] = sampled / max(perf["perf/generate_s"], 1e-9)
        if self.progress.reward_first is None:
            self.progress.reward_first = metrics["reward/mean"]
        self.progress.reward_last = metrics["reward/mean"]
        self.loggers.metrics({**metrics, **perf}, step)
        self.loggers.rollouts(rollouts, batch, step)

    def _evaluate_before(self) -> None:
        if self.evaluator is not None and self.progress.eval_before is None:
            result = self._evaluate()
            self.progress.eval_before = asdict(result)
            self.loggers.evaluated(result.metrics())
            self.console.tell(f"before training: {describe(self.progress.eval_before)}")
        self.clock.lap()

    def _evaluate_when_due(self) -> dict[str, float]:
        asked = self.eval_steps is not None and self.progress.step % self.eval_steps == 0
        if self.evaluator is None or not (asked or self.progress.done):
            return {}
        result = self._evaluate()
        if self.progress.done:
            self.progress.eval_after = asdict(result)
        return result.metrics()

    def _evaluate(self) -> EvalResult:
        assert self.evaluator is not None
        with self.clock("evaluate"):
            return self.evaluator.evaluate()

    def _save(self) -> Path:
        self.console.phase("save")
        state = {
            "progress": asdict(self.progress),
            "prompts": self.prompts.state(),
            "advantages": self.advantages.state(),
            "record": self.record,
        }
        return self.checkpointer.save(self.progress.step, state)

    def resume(self) -> None:
        """Goes on from the newest whole checkpoint; says so, and what has changed since; or says that there is none."""
        restored = self.checkpointer.restore()
        if restored is None:
            self.console.say(f"no checkpoint in {self.checkpointer.folder.path}: starting fresh")
            return
        path, state = restored
        self.progress.restore(state["progress"])
        self.prompts.load_state(state["prompts"])
        self.advantages.load_state(state["advantages"])
        self.sync.push(self.policy, version=self.progress.step)
        self.console.say(f"resumed from step {self.progress.step} ({path})")
        finished = self.save_path / "summary.json"
        if finished.is_file() and (steps := json.loads(finished.read_text()).get("steps", 0)) > self.progress.step:
            self.console.say(f"warning: steps {self.progress.step + 1} to {steps} were done already and are done again")
        for line in differences(state["record"], self.record):
            self.console.say(f"warning: changed since that checkpoint: {line}")

    def _finish(self) -> None:
        self.checkpointer.export(self.save_path)
        write_json(self.save_path / "summary.json", self.summary())
        self.console.tell(f"finished {self.progress.step} steps; model in {self.save_path}")
        if self.progress.eval_before and self.progress.eval_after:
            self.console.tell(f"held-out accuracy before: {describe(self.progress.eval_before)}")
            self.console.tell(f"held-out accuracy after:  {describe(self.progress.eval_after)}")

    def _stop_early(self) -> None:
        newest = self.checkpointer.folder.newest()
        path = newest[1] if newest and newest[0] == self.progress.step else self._save()
        write_json(self.save_path / "summary.json", self.summary())
        self.console.say(f"stopped by {self.stop.name} after step {self.progress.step}; go on with --load_checkpoint")
        self.console.say(f"checkpoint: {path}")

    def summary(self) -> dict[str, Any]:
        found = {"before": self.progress.eval_before, "after": self.progress.eval_after}
        return {
            "steps": self.progress.step,
            "reward_first": self.progress.reward_first,
            "reward_last": self.progress.reward_last,
            "eval": {name: result for name, result in found.items() if result is not None},
        }


def describe(result: dict[str, Any]) -> str:
    invalid = f", {result['invalid']} invalid" if result["invalid"] else ""
    interval = f"[{result['ci_low']:.3f}, {result['ci_high']:.3f}]"
    return f"{result['accuracy']:.3f} {interval} on {result['n']} prompts{invalid}"


def _peak_memory() -> float:
    """Peak resident memory of this process in GiB; the unit of ru_maxrss is KiB on Linux and bytes on macOS."""
    unit = 1 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / (1 << 30)
