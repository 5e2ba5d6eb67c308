"""The most memory that was in use, for perf/."""

from __future__ import annotations

import resource
import sys

import torch

GIB = 1 << 30


def peak_memory() -> dict[str, float]:
    """GiB of this process's memory, in its life so far, and of the GPU's that tensors took since the last call."""
    found = {"perf/peak_memory_gib": _resident()}
    if torch.cuda.is_available():
        found["perf/peak_device_memory_gib"] = torch.cuda.max_memory_allocated() / GIB
        torch.cuda.reset_peak_memory_stats()
    return found


def _resident() -> float:
    """The unit of ru_maxrss is KiB on Linux and bytes on macOS."""
    unit = 1 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB
