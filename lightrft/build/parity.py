"""What compares engine and trainer: after each sync, and at each step."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from lightrft.args import Args
from lightrft.models.token_model import TokenModel
from lightrft.preflight import Inputs
from lightrft.ranks.base import Ranks
from lightrft.recipe import sampling
from lightrft.rollouts.engines.base import InferenceEngine, Sampling
from lightrft.rollouts.engines.sampling import keep
from lightrft.strategy.base import Precision, Strategy
from lightrft.sync.alarm import Alarm
from lightrft.sync.diagnosis import Diagnosis
from lightrft.sync.parity import ParityGate, Verdict, limit_for
from lightrft.sync.probe import Probe, probe_sampling
from lightrft.sync.texts import Texts
from lightrft.sync.weights import WeightSync
from lightrft.track.console import Console


@dataclass(frozen=True)
class Parity:
    """gate and probe are None where nothing is to be compared (`--on_logprob_gap off`)."""

    sync: WeightSync
    gate: ParityGate | None = None
    probe: Probe | None = None


@dataclass(frozen=True)
class ParityMaker:
    """everyone: all processes, each with its engine."""

    args: Args
    inputs: Inputs
    precision: Precision
    strategy: Strategy
    policy: TokenModel
    engine: InferenceEngine
    everyone: Ranks
    console: Console

    def make(self) -> Parity:
        mode, handle = self.args.engine.on_logprob_gap, self.policy.handle
        if mode == "off":
            return Parity(WeightSync(self.strategy, handle, self.engine, self.everyone))
        alarm = Alarm(mode == "error", self.console.always)
        sync = WeightSync(self.strategy, handle, self.engine, self.everyone, alarm)
        gate = ParityGate(self._verdict(self.strategy.ranks, sampling(self.args), sync, alarm))
        unfiltered = probe_sampling(self.args.model.max_new_tokens)
        probed = self._verdict(self.everyone, unfiltered, sync, alarm)
        prompt = self.inputs.text_ids()
        world, known = self.strategy.world, lambda: sync.found is not None
        probe = Probe(self.engine, self.policy, world, self.everyone, prompt, unfiltered, probed, known)
        return Parity(sync, gate, probe)

    def _verdict(self, ranks: Ranks, asked: Sampling, sync: WeightSync, alarm: Alarm) -> Verdict:
        sides = {self.precision.compute, self._engine_precision()}
        given = self.args.engine.max_logprob_gap
        texts = Texts(self.inputs.tokenizer, self._longest())
        exact = sides == {"fp32"}
        diagnosis = Diagnosis(self.policy, ranks, asked, keep, texts, lambda: sync.found, exact=exact)
        return Verdict(ranks, limit_for(sides) if given is None else given, diagnosis, alarm)

    def _engine_precision(self) -> str:
        asked = self.args.engine.engine_dtype
        return self.precision.compute if asked == "auto" else asked

    def _longest(self) -> int:
        """Tokens of a row that the policy can read."""
        config = self.policy.handle.model.config.get_text_config()
        return getattr(config, "max_position_embeddings", None) or sys.maxsize
