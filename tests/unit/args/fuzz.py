"""Command lines and YAML files, mutated: each mutation is of a known kind, so what must come of a case is known too."""

from __future__ import annotations

from pathlib import Path

import fuzz_files  # noqa: F401  enters its mutations
import fuzz_together  # noqa: F401
import fuzz_typed  # noqa: F401
from fuzz_case import MUTATIONS, Case

__all__ = ["MUTATIONS", "build"]

# So that accepted cases have every flag, and refused ones every kind of text at many flags.
OFTEN = {"typed": 8, "in_yaml": 8, "nasty": 3, "nasty_in_yaml": 3, "everywhere": 2, "typed_twice": 2}
CALM = ["typed", "in_yaml", "everywhere", "estimator", "of_the_algorithm", "target_together", "older_switches"]


def build(seed: int, folder: Path) -> tuple[Case, list[str]]:
    """The case of this seed, and the kinds of its mutations: none to four. Every fifth is mostly accepted."""
    case = Case(seed, folder)
    weights = [OFTEN.get(kind, 1) for kind in MUTATIONS]
    kinds = case.random.choices(list(MUTATIONS), weights, k=case.random.randrange(5))
    if seed % 5 == 0:
        kinds = case.random.choices(CALM, k=case.random.randrange(1, 6))
    for kind in kinds:
        MUTATIONS[kind](case)
    return case, kinds
