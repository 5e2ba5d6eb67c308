"""The golden numbers: cases, the fixture's columns, and the tolerances it states."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lightrft.algorithms.functional import Counts

GOLDEN = json.loads((Path(__file__).parent / "golden_ragged8.json").read_text())
FIXTURE = GOLDEN["fixtures"]["ragged8"]
# float64: sums of 40 terms; float32: 6e-8 a rounding, and exp of up to 1. The fixture's own tolerances.
TOLERANCE = {torch.float64: {"rtol": 1e-9, "atol": 1e-12}, torch.float32: {"rtol": 2e-5, "atol": 2e-6}}
BOTH = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])

TESTED: set[str] = set()  # names of the cases that some test takes; test_golden_cases.py wants all of them


def cases(op: str, *, given: str | None = None, without: str | None = None, **values: Any) -> Any:
    """The cases of an operation, those with and without a parameter, and with such values of others."""
    found = [c for c in GOLDEN["cases"] if c["op"] == op and without not in c["params"]]
    found = [c for c in found if given is None or given in c["params"]]
    found = [c for c in found if all(c["params"].get(name) == value for name, value in values.items())]
    assert found, f"no golden case of {op}"
    TESTED.update(c["name"] for c in found)
    return pytest.mark.parametrize("case", found, ids=[c["name"] for c in found])


def column(name: str, dtype: torch.dtype) -> torch.Tensor:
    return torch.tensor(FIXTURE[name], dtype=dtype)


def mask() -> torch.Tensor:
    return column("mask", torch.long)


def advantages(case: dict[str, Any], dtype: torch.dtype) -> torch.Tensor:
    if case["params"].get("adv") == "adv_tokens":
        return column("adv_tokens", dtype)
    return column("adv_seq", dtype)[:, None].expand(8, 10)


def counts(max_new_tokens: int = 16) -> tuple[Counts, torch.Tensor]:
    """Counted from the fixture's lists, not by our own code; and the tokens of each row's group."""
    lengths = [sum(row) for row in FIXTURE["mask"]]
    per_group = {g: sum(n for n, h in zip(lengths, FIXTURE["groups"], strict=True) if h == g) for g in (0, 1)}
    group_tokens = torch.tensor([float(per_group[g]) for g in FIXTURE["groups"]])
    return Counts(tokens=39, sequences=8, rows=8, groups=2, max_new_tokens=max_new_tokens), group_tokens


def expect(found: Any, wanted: Any, dtype: torch.dtype = torch.float64) -> None:
    found = found.detach() if isinstance(found, torch.Tensor) else torch.tensor(found, dtype=torch.float64)
    torch.testing.assert_close(found.to(dtype), torch.tensor(wanted, dtype=dtype), **TOLERANCE[dtype])


def token_mean(values: torch.Tensor) -> torch.Tensor:
    weights = mask().to(values.dtype)
    return (values * weights).sum() / weights.sum()
