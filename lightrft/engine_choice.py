"""Which engine answers: what `--engine_type` names; for auto vLLM where it is installed and suits, else local."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from lightrft.args import Args
from lightrft.args.field import as_text
from lightrft.errors import Refused
from lightrft.hardware import choose_precision, hardware
from lightrft.models.suitable import read_config
from lightrft.models.vision import sees
from lightrft.recipe import eval_sampling, sampling, temperature_schedule
from lightrft.rollouts.engines.base import Sampling
from lightrft.rollouts.engines.offers import OFFERS, Fault, Offer

SEE = {"vllm": "use --engine_type local", "sglang": "use --engine_type vllm or local"}  # where it cannot take images
FOR_OTHERS = ("engine_mem_util", "enable_engine_sleep", "engine_kwargs")  # what the local engine does not ask for


@dataclass(frozen=True)
class EngineChoice:
    kind: str
    why: str

    def __str__(self) -> str:
        return f"{self.kind} ({self.why})"


def choose_engine(args: Args, *, videos: bool = False) -> EngineChoice:
    """`Refused` where the engine that is asked for is not installed, or cannot do what the flags ask of it, or what
    prompts need. videos: whether some have a video."""
    asked, processes = args.engine.engine_type, args.engine.engine_tp_size
    if asked == "local" and processes > 1:
        alone = "the local engine samples in each process alone; use 1, or --engine_type vllm"
        raise Refused(f"--engine_tp_size {processes}: {alone}")
    if asked == "local":
        return EngineChoice(asked, "asked for")
    kind = "vllm" if asked == "auto" else asked
    fault = next(_faults(args, kind, videos), None)
    if fault is None:
        return EngineChoice(kind, "asked for" if asked == kind else "auto")
    if asked == kind:
        raise Refused(f"--engine_type {asked}: {fault}")
    if processes > 1:
        raise Refused(f"--engine_tp_size {processes} needs --engine_type vllm, and {fault}")
    return EngineChoice("local", f"auto: {fault.reason}")


def told_of_engine(args: Args, *, videos: bool = False) -> list[str]:
    """Flags that someone typed and the chosen engine does not ask for."""
    ignored = _ignored(args, choose_engine(args, videos=videos).kind).items()
    return [f"--{flag} {as_text(args.value(flag))} cannot matter: {why}" for flag, why in ignored if args.typed(flag)]


def _ignored(args: Args, kind: str) -> dict[str, str]:
    """Flags that make no difference to that engine on this machine, and why."""
    if kind != "local":
        apart = f"{kind} sets its own memory aside without a GPU"
        return {"engine_mem_util": apart} if hardware(args).device == "cpu" else {}
    own_weights = args.engine.engine_dtype not in ("auto", choose_precision(args)[0].compute)  # it gives them back
    flags = [flag for flag in FOR_OTHERS if not (flag == "enable_engine_sleep" and own_weights)]
    return dict.fromkeys(flags, "the local engine has nothing that it sets")


def _samplings(args: Args) -> Iterator[Sampling]:
    """What an engine is asked for in the course of the run: a schedule's temperatures lie between its two ends."""
    begun, schedule = sampling(args), temperature_schedule(args, steps=1)
    yield begun
    yield replace(begun, temperature=schedule.at(schedule.steps))
    yield eval_sampling(args)


def _faults(args: Args, kind: str, videos: bool) -> Iterator[Fault]:
    """First those of any installation. On assumed GPUs another machine is meant: what is installed there nobody
    knows."""
    offer = OFFERS[kind]
    for asked in _samplings(args):
        if reason := offer.module.unsupported(asked):
            yield Fault(reason, "use --engine_type local")
    if reason := _sight_fault(args, offer, None, videos):
        yield Fault(reason, SEE[kind])
    if args.run.assume_gpus is None:
        yield from _faults_here(args, kind, hardware(args).device, videos)


def _faults_here(args: Args, kind: str, device: str, videos: bool) -> Iterator[Fault]:
    """Those of what is installed on this machine."""
    offer, package = OFFERS[kind], OFFERS[kind].package(device)
    if fault := package.fault():
        yield fault
    if reason := offer.module.import_fault():
        yield Fault(reason, f"{package.install}, or --engine_type local")
    if reason := _sight_fault(args, offer, device, videos):
        yield Fault(reason, SEE[kind])
    if args.engine.engine_kwargs and (reason := offer.module.settings_fault(args.model, args.engine, device)):
        yield Fault(reason, "mend it or leave it out")


def _sight_fault(args: Args, offer: Offer, device: str | None, videos: bool) -> str | None:
    """Why it cannot take the images of a model that sees, or its videos; device: as `images_fault` takes it. Where
    there is no model preflight says so."""
    try:
        config = read_config(args.model)
    except Refused:
        return None
    if not sees(config):
        return None
    of_images = offer.module.images_fault(args.model, config, device)
    return of_images or (offer.module.videos_fault(config) if videos else None)
