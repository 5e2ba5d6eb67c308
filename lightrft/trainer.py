"""The loop: generate, score, learn. One turn of it is a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lightrft.batch import Batch
from lightrft.errors import RunFailed, os_errors_as
from lightrft.held_out import Evaluations
from lightrft.loop import resumed
from lightrft.loop.checkpointing import Boundary, Checkpointer, SaveFailed
from lightrft.loop.due import Due
from lightrft.loop.placement import Placement
from lightrft.loop.progress import Progress, describe, steps_in_summary
from lightrft.loop.random_state import random_state
from lightrft.loop.stop import StopRequest
from lightrft.prompts.sampler import PromptSampler
from lightrft.ranks.base import Ranks
from lightrft.ranks.pulse import PULSE
from lightrft.ranks.together import together
from lightrft.rewards.base import check_some_valid
from lightrft.rollouts.collector import Collector
from lightrft.rollouts.dealer import Dealer
from lightrft.rollouts.statistics import rollout_metrics
from lightrft.sync.parity import ParityGate
from lightrft.track.base import Loggers
from lightrft.track.clock import Clock
from lightrft.track.console import Console
from lightrft.track.peaks import peak_memory
from lightrft.track.pictures import Read
from lightrft.track.profiler import Profiler
from lightrft.track.run_record import write_json
from lightrft.track.samples import first_samples
from lightrft.track.speed import Speed
from lightrft.types import Rollout
from lightrft.update.advantages import AdvantageStage
from lightrft.update.score import Scorer
from lightrft.update.step import Updater, UpdateReport


@dataclass
class Trainer:
    """everyone: all processes; rows: those that hold rows of their own. shown: samples of a step that loggers get, with
    the pictures that `read` finds in their prompts.
    """

    everyone: Ranks
    rows: Ranks
    prompts: PromptSampler
    collector: Collector
    dealer: Dealer
    scorer: Scorer
    advantages: AdvantageStage
    updater: Updater
    placement: Placement
    evaluations: Evaluations
    checkpointer: Checkpointer
    due: Due
    progress: Progress
    loggers: Loggers
    console: Console
    clock: Clock
    profiler: Profiler
    save_path: Path
    speed: Speed
    record: dict[str, Any]
    shown: int = 0
    read: Read | None = None
    parity: ParityGate | None = None
    stop: StopRequest = field(default_factory=StopRequest)
    boundary: Boundary = field(init=False)

    def fit(self) -> None:
        """Runs to the end, or to the first step boundary after a signal; then everything needed to go on is saved.

        The same where a turn fails for good: the last boundary is saved, and then the failure ends the run.
        """
        self.stop.listen()
        try:
            self._loop()
        except Exception as error:
            self._keep_what_was_learned(error)
            raise
        finally:
            self.close()

    def close(self) -> None:
        """Every way out of a run ends here."""
        with PULSE.ending():
            self.collector.close()
            self.loggers.close()
            self.placement.close()

    def _loop(self) -> None:
        self._mark_boundary()
        left = not self.progress.done
        if left and self._signal() is None:
            self._begin()
        signal = None
        while not self.progress.done and (signal := self._signal()) is None:
            with self.profiler(self.progress.step + 1):
                self._turn()
        if self.progress.done:
            self._finish(trained=left)
        else:
            self._stop_early(signal)

    def _signal(self) -> str | None:
        """The one that came, to any rank."""
        return self.everyone.agree(self.stop.name)

    def _turn(self) -> None:
        step, episode = self.progress.step + 1, self.prompts.episode
        self.placement.generate(self.progress.step)
        with self.clock("generate"):
            rollouts = self.collector.collect(self.prompts, step)
            if self.parity is not None:
                self.parity.look(rollouts)
            rollouts, index = self.dealer.deal(rollouts, step)
        check_some_valid(index.errors, step)
        self.placement.score()
        with self.clock("score"):
            batch = self.scorer.to_batch(rollouts, index, self.collector.temperature(step))
        batch, shaped = self.advantages(batch)
        self.placement.learn()
        with self.clock("update"):
            for part in self.updater.partition(batch, step):
                self.updater.step(batch, part)
        learned = self.updater.report()
        adapted = self.advantages.kl.after_step(learned.metrics, len(index), learned.taken)
        self.progress.advance()
        if self.collector.over(self.prompts):
            self._end_at_this_step()
        evaluated: dict[str, float] = {}
        try:
            evaluated = self.evaluations.when_due()
        finally:  # what was learned is told and saved, also where its evaluation fails
            self._track(rollouts, batch, learned, {**self.collector.stats(), **shaped, **adapted, **evaluated})
        self._mark_boundary()
        self.updater.end_if_failed()
        self.checkpointer.settle(wait=False)
        if self.due(step, episode, self.prompts.episode):
            self._rest_for_a_save()
            self.checkpointer.begin(self.boundary)

    def _track(self, rollouts: Sequence[Rollout], batch: Batch, update: UpdateReport, extra: dict[str, float]) -> None:
        step, index = self.progress.step, batch.index
        metrics = {**rollout_metrics(index.outcomes), **update.metrics, **extra, "episode": self.prompts.episode}
        perf = {**self.clock.lap(), **update.perf, **peak_memory()}
        perf |= self.speed(index, perf)
        sampled = sum(outcome.length for outcome in index.outcomes)
        perf["perf/tokens_per_s"] = sampled / max(perf["perf/generate_s"], 1e-9)
        if self.progress.reward_first is None:
            self.progress.reward_first = metrics["reward/mean"]
        self.progress.reward_last = metrics["reward/mean"]
        self.loggers.metrics({**metrics, **perf}, step)
        samples = first_samples(rollouts, batch, self.shown, self.rows, self.read)
        self.loggers.rollouts(index.outcomes, samples, step)
        for line in self.advantages.health.remarks(metrics, step):
            self.console.always(line)

    def _begin(self) -> None:
        """What comes before the first step, and is in no step's time: the engine's start, and an evaluation."""
        with self.clock("engine"):
            self.placement.generate(self.progress.step)
        metrics = self.evaluations.before()
        if metrics is not None:
            self.loggers.evaluated(metrics)
        self.clock.lap()
        self._mark_boundary()

    def _end_at_this_step(self) -> None:
        self.progress.end()
        self.console.total_steps = self.progress.total_steps

    def _mark_boundary(self) -> None:
        self.boundary = self._boundary_now()
        self.updater.changed = False

    def _boundary_now(self) -> Boundary:
        state = {
            "progress": asdict(self.progress),
            "prompts": self.prompts.state(),
            "advantages": self.advantages.state(),
            "record": self.record,
        }
        return Boundary(self.progress.step, state, random_state())

    def _save(self) -> Path:
        """The checkpoint of the boundary, unless it is there already."""
        self.checkpointer.settle()
        newest = self.checkpointer.newest
        if newest and newest[0] == self.boundary.step:
            return newest[1]
        self._rest_for_a_save()
        return self.checkpointer.save(self.boundary)

    def _rest_for_a_save(self) -> None:
        self.console.phase("save")
        self.placement.rest()

    def _keep_what_was_learned(self, error: Exception) -> None:
        """Saves the last boundary. A turn that fails before its first optimizer step has changed nothing since; one
        that fails after its last has come to a new boundary. In between nothing can be saved."""
        alone = self.everyone.size > 1 and not isinstance(error, RunFailed)  # the other ranks may have no such error
        if alone or isinstance(error, SaveFailed) or not self.progress.step:
            return
        if self.progress.step > self.boundary.step:
            self._mark_boundary()
        self.placement.give_up()
        try:
            if self.updater.changed:
                self.console.always(
                    "the weights were being changed: what was learned since the last checkpoint is lost"
                )
                return self.checkpointer.settle()
            path = self._save()
        except Exception as failure:
            self.console.warn(f"the state after step {self.boundary.step} is lost as well: {failure}")
        else:
            self.console.always(
                f"the state after step {self.boundary.step} is kept: {path}; go on with --load_checkpoint"
            )

    def resume(self, changes: Callable[[Mapping[str, Any]], list[str]]) -> None:
        """Goes on from the newest whole checkpoint; says so, and what has changed since its record; or says that there
        is none."""
        planned = self.progress.total_steps
        restored = self.checkpointer.restore(lambda state: self._restore(state, changes))
        if restored is None:
            self.console.always(f"no checkpoint in {self.checkpointer.folder.path}: starting fresh")
            return
        given = self.record["arguments"]["max_steps"]["value"]
        end = f"--max_steps {given}" if given is not None else f"the {planned} steps of --num_episodes"
        done_before = steps_in_summary(self.save_path / "summary.json")
        resumed.tell(self.console, restored, self.progress, end=end, planned=planned, done_before=done_before)

    def _restore(self, state: Mapping[str, Any], changes: Callable[[Mapping[str, Any]], list[str]]) -> list[str]:
        """What `changes` says. Any error says that the checkpoint is damaged."""
        self.progress.restore(state["progress"])
        self.prompts.load_state(state["prompts"])
        self.advantages.load_state(state["advantages"])
        if self.collector.over(self.prompts):
            self._end_at_this_step()
        if not self.progress.done:  # the end that was evaluated is the end no more
            self.progress.eval_after = None
        return changes(state["record"])

    def _finish(self, *, trained: bool) -> None:
        self.evaluations.after()
        self.placement.rest()
        with PULSE.during("export"):
            self.checkpointer.export(self.save_path)
        self._write_summary()
        ended = "finished {} steps" if trained else "nothing was trained: {} steps were done already"
        self.console.unless_quiet(f"{ended.format(self.progress.step)}; model in {self.save_path}")
        if self.progress.eval_before and self.progress.eval_after:
            self.console.unless_quiet(f"held-out accuracy before: {describe(self.progress.eval_before)}")
            self.console.unless_quiet(f"held-out accuracy after:  {describe(self.progress.eval_after)}")
        for line in self.advantages.health.verdict():
            self.console.always(line)

    def _stop_early(self, signal: str | None) -> None:
        path = self._save()
        self._write_summary()
        self.console.always(f"stopped by {signal} after step {self.progress.step}; go on with --load_checkpoint")
        self.console.always(f"checkpoint: {path}")

    def _write_summary(self) -> None:
        with together(self.everyone):
            if self.everyone.rank == 0:
                self._summarise()

    def _summarise(self) -> None:
        path = self.save_path / "summary.json"
        with os_errors_as(RunFailed, f"--save_path: {path} could not be written", "make room and --load_checkpoint"):
            write_json(path, self.progress.summary())
