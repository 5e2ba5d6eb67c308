"""Which engine answers: what `--engine_type` names; for auto vLLM where it is installed and suits, else local."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lightrft.args import Args
from lightrft.args.field import as_text
from lightrft.errors import Refused
from lightrft.hardware import hardware
from lightrft.recipe import eval_sampling, sampling
from lightrft.rollouts.engines.offers import OFFERS, Fault

FOR_OTHERS = ("engine_mem_util", "enable_engine_sleep", "engine_kwargs")  # what the local engine does not ask for


@dataclass(frozen=True)
class EngineChoice:
    kind: str
    why: str

    def __str__(self) -> str:
        return f"{self.kind} ({self.why})"


def choose_engine(args: Args) -> EngineChoice:
    """`Refused` where the engine that is asked for is not installed, or cannot do what the flags ask of it."""
    asked, processes = args.engine.engine_type, args.engine.engine_tp_size
    if asked == "local" and processes > 1:
        alone = "the local engine samples in each process alone; use 1, or --engine_type vllm"
        raise Refused(f"--engine_tp_size {processes}: {alone}")
    if asked == "local":
        return EngineChoice(asked, "asked for")
    kind = "vllm" if asked == "auto" else asked
    fault = next(_faults(args, kind), None)
    if fault is None:
        return EngineChoice(kind, "asked for" if asked == kind else "auto")
    if asked == kind:
        raise Refused(f"--engine_type {asked}: {fault}")
    if processes > 1:
        raise Refused(f"--engine_tp_size {processes} needs --engine_type vllm, and {fault}")
    return EngineChoice("local", f"auto: {fault.reason}")


def told_of_engine(args: Args) -> list[str]:
    """Flags that someone typed and the chosen engine does not ask for."""
    kind = choose_engine(args).kind
    ignored = FOR_OTHERS if kind == "local" else ()
    return [
        f"--{flag} {as_text(args.value(flag))} cannot matter: the {kind} engine has nothing that it sets"
        for flag in ignored
        if args.typed(flag)
    ]


def _faults(args: Args, kind: str) -> Iterator[Fault]:
    """On assumed GPUs another machine is meant: what is installed there nobody knows."""
    offer, here = OFFERS[kind], args.run.assume_gpus is None
    if here and (fault := offer.package(hardware(args).device).fault()):
        yield fault
    for asked in (sampling(args), eval_sampling(args)):
        if reason := offer.module.unsupported(asked):
            yield Fault(reason, "use --engine_type local")
    if here and args.engine.engine_kwargs and (reason := offer.module.settings_fault(args.engine.engine_kwargs)):
        yield Fault(reason, "leave it out")
