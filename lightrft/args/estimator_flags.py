"""Whether an estimator's file speaks of flags that exist, and gives them values that they can have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lightrft.args.estimators import Declared, Fault, own_estimator, read_estimator
from lightrft.args.field import as_text
from lightrft.args.nearest import nearest
from lightrft.args.surface import FLAGS, Flag


def estimator_fault(name: str) -> str | None:
    """What is wrong with the file that `--advantage_estimator name` reads, in one line; None where nothing is."""
    try:
        declaration = read_estimator(name)
    except Fault as fault:
        return str(fault)
    where = str(own_estimator(name) or f"the file of {name}")
    return next((f"{where}: {fault}" for fault in _faults(declaration)), None)


def _faults(declaration: Declared) -> Iterator[str]:
    for word in ("defaults", "ignores"):
        for flag in getattr(declaration, word):
            if flag not in FLAGS:
                yield f"{word} of ESTIMATOR: no such flag: {flag}{nearest(flag, FLAGS)}"
    for flag, value in declaration.defaults.items():
        if flag in FLAGS:
            yield from _of_default(FLAGS[flag], value)


def _of_default(flag: Flag, value: Any) -> Iterator[str]:
    record, label = flag.record, f"defaults of ESTIMATOR: {flag.name} {as_text(value)}"
    if record.required or record.unbuilt or flag.name in ("advantage_estimator", "config", "mode"):
        yield f"{label}: this flag cannot have a default of an estimator"
    elif not _is_of(flag, value):
        yield f"{label} is not of the flag's type"
    elif value is not None and (wrong := record.violation(value)):
        yield f"defaults of ESTIMATOR: {flag.name} {wrong}"


def _is_of(flag: Flag, value: Any) -> bool:
    kind = flag.kind
    if value is None:
        return kind.optional
    if kind.shape == "one":
        numbers = (int, float) if kind.of is float else kind.of
        return isinstance(value, numbers) and (isinstance(value, bool) == (kind.of is bool))
    return isinstance(value, Mapping if kind.shape == "pairs" else tuple)
