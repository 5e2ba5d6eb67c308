"""The whole surface: every flag by name, and the arguments of one run with the source of each value."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from lightrft.args.convert import Kind, kind_of
from lightrft.args.field import RECORD, Record, as_text
from lightrft.args.groups.algorithm import AlgorithmArgs
from lightrft.args.groups.batch import BatchArgs
from lightrft.args.groups.checkpoint import CheckpointArgs
from lightrft.args.groups.data import DataArgs
from lightrft.args.groups.distributed import DistributedArgs
from lightrft.args.groups.engine import EngineArgs
from lightrft.args.groups.evaluation import EvaluationArgs
from lightrft.args.groups.logging import LoggingArgs
from lightrft.args.groups.memory import MemoryArgs
from lightrft.args.groups.model import ModelArgs
from lightrft.args.groups.multimodal import MultimodalArgs
from lightrft.args.groups.rewards import RewardArgs
from lightrft.args.groups.run import RunArgs
from lightrft.args.groups.sampling import SamplingArgs
from lightrft.args.groups.training import TrainingArgs


@dataclass(frozen=True)
class Flag:
    name: str
    group: str
    kind: Kind
    record: Record

    @property
    def is_switch(self) -> bool:
        return self.kind.of is bool

    def turned(self, name: str, on: bool) -> bool:
        """What a switch is set to by `name`, which may be one that says the opposite."""
        return on != (name in self.record.opposites)

    def written(self, value: Any, name: str = "") -> str:
        """The flag with a value as it stands on a command line; a switch's value is in its name. name: that it was
        typed by, of several."""
        if not self.is_switch:
            return f"--{name or self.name} {as_text(value)}"
        opposite = next(iter(self.record.opposites), f"no-{self.name}")
        return f"--{name or (self.name if value else opposite)}"

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.record.aliases, *self.record.opposites)


@dataclass(frozen=True)
class Hidden:
    where: str
    value: Any
    name: str = ""


@dataclass(frozen=True)
class Source:
    """Where a value comes from: cli, run.yaml:12, default, default:<estimator>, default:program or code. name: that of
    the flag on the command line, with the `no-` of a switch; empty elsewhere."""

    where: str
    typed: bool = False
    hides: tuple[Hidden, ...] = ()
    name: str = ""

    def __str__(self) -> str:
        hidden = ", ".join(f"{entry.where} = {as_text(entry.value)}" for entry in self.hides)
        return f"{self.where} (hides {hidden})" if hidden else self.where


@dataclass(frozen=True)
class Args:
    model: ModelArgs
    training: TrainingArgs
    batch: BatchArgs
    algorithm: AlgorithmArgs
    sampling: SamplingArgs
    rewards: RewardArgs
    distributed: DistributedArgs
    memory: MemoryArgs
    engine: EngineArgs
    data: DataArgs
    evaluation: EvaluationArgs
    multimodal: MultimodalArgs
    logging: LoggingArgs
    checkpoint: CheckpointArgs
    run: RunArgs
    sources: Mapping[str, Source]

    def value(self, flag: str) -> Any:
        return getattr(getattr(self, FLAGS[flag].group), flag)

    def typed(self, flag: str) -> bool:
        """Whether someone set the flag, on the command line, in a YAML file or with `with_`."""
        return self.sources[flag].typed

    def written(self, flag: str) -> str:
        """The flag with its value as it was typed, or could be."""
        return FLAGS[flag].written(self.value(flag), self.sources[flag].name)

    def with_(self, **changes: Any) -> Args:
        """A copy with the flags replaced; defaults that follow from them are filled anew."""
        unknown = changes.keys() - FLAGS.keys()
        if unknown:
            raise KeyError(f"no such flag: {', '.join(sorted(unknown))}")
        values = {flag: self.value(flag) for flag in FLAGS}
        changed = {flag: Source("code", typed=True) for flag in changes}
        return resolve({**values, **changes}, {**self.sources, **changed})


GROUPS: dict[str, type] = {name: hint for name, hint in get_type_hints(Args).items() if name != "sources"}


def _flags_of(group: str, cls: type) -> dict[str, Flag]:
    hints = get_type_hints(cls)
    records = {entry.name: entry.metadata[RECORD] for entry in dataclasses.fields(cls)}
    return {name: Flag(name, group, kind_of(hints[name], record.nargs), record) for name, record in records.items()}


FLAGS: dict[str, Flag] = {name: flag for group, cls in GROUPS.items() for name, flag in _flags_of(group, cls).items()}
NAMES: dict[str, str] = {alias: flag.name for flag in FLAGS.values() for alias in flag.names}


def resolve(values: Mapping[str, Any], sources: Mapping[str, Source]) -> Args:
    """Fill the defaults that follow from other flags, and group the values."""
    derived = {
        flag.name: flag.record.derive(values)
        for flag in FLAGS.values()
        if flag.record.derive is not None and sources[flag.name].where == "default"
    }
    whole = {**values, **derived}
    groups = {
        group: cls(**{name: whole[name] for name, flag in FLAGS.items() if flag.group == group})
        for group, cls in GROUPS.items()
    }
    return Args(**groups, sources=sources)
