"""The GPUs that `--assume_gpus 1x80GB` speaks of."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightrft.args.surface import Args

FORM = re.compile(r"([1-9][0-9]{0,5})x([0-9]{1,6}(?:\.[0-9]+)?)GB", re.IGNORECASE)
EXAMPLE = "1x80GB"


@dataclass(frozen=True)
class Gpus:
    """`gigabytes` of memory on each, 10^9 bytes as vendors count."""

    count: int
    gigabytes: float


def assumed_gpus(args: Args) -> Gpus | None:
    """None where nothing is assumed, or where it cannot be read, which a rule reports."""
    match = FORM.fullmatch(args.run.assume_gpus or "")
    return Gpus(int(match[1]), float(match[2])) if match and float(match[2]) else None
