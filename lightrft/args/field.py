"""What one flag declares about itself; help, validation, documentation and the mutation test read this one record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lightrft.args.nearest import nearest

RECORD = "flag"
Choices = tuple[str | int, ...] | Callable[[], tuple[str, ...]] | None
Derive = Callable[[Mapping[str, Any]], Any]  # from the values of all flags, by name


@dataclass(frozen=True)
class Witness:
    """A tiny training in which setting the flag shows.

    `change` is added to the base run, `given` to both runs, and the flags named in `without` are left out of both.
    `{save_path}` stands for the run's folder. `seen` is what differs: metrics, perf:<key>, model, average (the
    model in ema/), files, output, summary, run (the runtime section of run.json), trajectories, wandb (what W&B was
    told of the run), refused (the changed run exits with 2) or gpu (no CPU can show it).
    """

    change: str
    seen: str
    given: str = ""
    without: str = ""


@dataclass(frozen=True)
class Record:
    help: str
    default: Any
    required: bool
    ge: float | None
    gt: float | None
    le: float | None
    lt: float | None
    choices: Choices
    recommended: tuple[float, float] | None
    aliases: tuple[str, ...]
    opposites: tuple[str, ...]
    nargs: int | str | None
    witness: Witness | None
    derive: Derive | None
    unset: str | None
    unbuilt: str | None
    path: bool

    def allowed(self) -> tuple[str | int, ...] | None:
        return self.choices() if callable(self.choices) else self.choices

    def bounds(self) -> str:
        limits = ((">=", self.ge), (">", self.gt), ("<=", self.le), ("<", self.lt))
        return " and ".join(f"{sign} {limit:g}" for sign, limit in limits if limit is not None)

    def violation(self, value: Any) -> str | None:
        """What is wrong with a value of the right type, and what would work."""
        if self.required and value == ():
            return "is empty: give at least one value"
        return next((wrong for item in items_of(value) if (wrong := self._wrong(item))), None)

    def _wrong(self, item: Any) -> str | None:
        allowed = self.allowed()
        if item == "":
            return "is empty: give a value or leave the flag out"
        if isinstance(item, str) and "\0" in item:
            return "holds a NUL character; remove it"
        if isinstance(item, str) and not _is_text(item):
            return f"{ascii(item)} holds bytes that are no text in UTF-8; rename it, or start with PYTHONUTF8=1"
        if allowed is not None and item not in allowed and not (self.path and str(item).endswith(".py")):
            names = [str(choice) for choice in allowed]
            listed = f"{', '.join(names)}{', or a .py file' if self.path else ''}"
            return f"{as_text(item)} is not one of its choices: {listed}{nearest(item, names)}"
        if isinstance(item, (int, float)) and not isinstance(item, bool) and not self._inside(item):
            return f"{repr(item).removesuffix('.0')} is out of bounds: it must be {self.bounds()}"
        return None

    def _inside(self, number: float) -> bool:
        low = (self.ge is None or number >= self.ge) and (self.gt is None or number > self.gt)
        return low and (self.le is None or number <= self.le) and (self.lt is None or number < self.lt)


def arg(
    default: Any,
    help: str,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    choices: Choices = None,
    recommended: tuple[float, float] | None = None,
    aliases: tuple[str, ...] = (),
    opposites: tuple[str, ...] = (),
    required: bool = False,
    nargs: int | str | None = None,
    witness: Witness | None = None,
    derive: Derive | None = None,
    unset: str | None = None,
    part: str | None = None,
    path: bool = False,
) -> Any:
    """A dataclass field that carries its flag's record.

    `opposites` are further names of a switch that turn it off. `derive(values)` fills a default that follows from other
    flags; `unset` says in words what a default of None means. `part` names the part of the project that is to build it.
    `path`: a file or folder, or the name of a model or data set in its place; args/paths.py expands it.
    """
    limits = {"ge": ge, "gt": gt, "le": le, "lt": lt}
    record = Record(
        help=help, default=default, required=required, **limits, choices=choices, recommended=recommended,
        aliases=aliases, opposites=opposites, nargs=nargs, witness=witness, derive=derive,
        unset=unset, unbuilt=part, path=path,
    )  # fmt: skip
    metadata = {RECORD: record}
    if required:
        return field(metadata=metadata)
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def unbuilt(part: str, default: Any, help: str, example: str, **facts: Any) -> Any:
    """A flag of the surface that no part of the project honours yet: declared in full, and refused when it is set.

    `example` is the flag with a legal value. Who builds the flag turns `unbuilt` into `arg` and gives it a witness.
    """
    return arg(default, help, witness=Witness(example, "refused"), part=part, **facts)


def older(default: Any, help: str, **facts: Any) -> Any:
    """An older switch: args/aliases.py reads it into what it means today, and nothing else looks at it."""
    return arg(default, help, **facts)


def items_of(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return tuple(value.values())
    return value if isinstance(value, (tuple, list)) else (value,)


def as_text(value: Any) -> str:
    """A value as the user would write it; strings with white space show it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return " ".join(f"{name}={as_text(weight)}" for name, weight in value.items()) or "(none)"
    if isinstance(value, (tuple, list)):
        return " ".join(as_text(item) for item in value) or "(none)"
    if isinstance(value, str) and (value.split() != [value]):
        return repr(value)
    return repr(value) if isinstance(value, float) else str(value)


def _is_text(word: str) -> bool:
    """Undecodable bytes of a command line arrive as lone surrogates, which no file of ours can hold."""
    try:
        word.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
