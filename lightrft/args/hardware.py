"""How many processes there are, and the GPUs that `--assume_gpus 1x80GB` speaks of."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightrft.args.surface import Args

from lightrft.errors import Refused

FORM = re.compile(r"([1-9][0-9]{0,5})x([0-9]{1,6}(?:\.[0-9]+)?)GB", re.IGNORECASE)
OF_A_RANK = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # which torchrun sets beside WORLD_SIZE
NUMBER = re.compile(r"(?<![a-wyz0-9.])[0-9]+(?:\.[0-9]+)?", re.IGNORECASE)  # and no part of a name such as H100
COMMON_GB = 80


def processes_started() -> int:
    """By torchrun; 1 with plain python."""
    text = os.environ.get("WORLD_SIZE", "1")
    if not text.isascii() or not text.isdigit() or not int(text):
        raise Refused(
            f"WORLD_SIZE={text!r} in the environment is no number of processes; torchrun sets it, or unset it"
        )
    missing = [name for name in OF_A_RANK if name not in os.environ]
    if int(text) > 1 and missing:
        raise Refused(
            f"WORLD_SIZE={text} in the environment means {text} processes, but {missing[0]} is not set; start them "
            "with torchrun, which sets both, or unset it"
        )
    return int(text)


@dataclass(frozen=True)
class Gpus:
    """`gigabytes` of memory on each, 10^9 bytes as vendors count."""

    count: int
    gigabytes: float


def assumed_gpus(args: Args) -> Gpus | None:
    """None where nothing is assumed, or where it cannot be read, which a rule reports."""
    match = FORM.fullmatch(args.run.assume_gpus or "")
    return Gpus(int(match[1]), float(match[2])) if match and float(match[2]) else None


def nearest_gpus(text: str) -> str:
    """What may have been meant by a text that `--assume_gpus` does not take, in the form that it takes."""
    numbers = NUMBER.findall(text)
    is_count = re.search(r"[0-9]\s*x|x\s*[0-9]", text, re.IGNORECASE)
    if len(numbers) == 1:
        numbers = [numbers[0], COMMON_GB] if is_count else [1, numbers[0]]
    meant = "x".join(map(str, numbers)) + "GB"
    match = FORM.fullmatch(meant)
    return meant if match and float(match[2]) else f"1x{COMMON_GB}GB"


def processes_of(args: Args) -> int:
    """That the run has: those that were started, or one on each GPU that is assumed."""
    gpus = assumed_gpus(args)
    return gpus.count if gpus else processes_started()
