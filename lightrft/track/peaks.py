"""The peaks of memory, for perf/."""

from __future__ import annotations

import resource
import sys

import torch

GIB = 1 << 30


def peak_memory() -> dict[str, float]:
    """In GiB: of this process, in its life so far; and on the GPU, since the last call: of tensors, and of what PyTorch
    has reserved for them."""
    metrics = {"perf/peak_memory_gib": _resident()}
    if torch.cuda.is_available():
        metrics["perf/peak_device_memory_gib"] = torch.cuda.max_memory_allocated() / GIB
        metrics["perf/peak_device_reserved_gib"] = torch.cuda.max_memory_reserved() / GIB
        torch.cuda.reset_peak_memory_stats()
    return metrics


def _resident() -> float:
    """The unit of ru_maxrss is KiB on Linux and bytes on macOS."""
    unit = 1 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB
