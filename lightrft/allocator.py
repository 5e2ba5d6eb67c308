"""glibc's malloc, told to keep what is freed: tensors of one step have the sizes of the last one's."""

from __future__ import annotations

import ctypes
import os

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # malloc.h
SETTINGS = {
    M_MMAP_MAX: 0,  # a block of its own goes back to the system when it is freed, and comes back page by page
    M_TRIM_THRESHOLD: -1,  # never
    M_TOP_PAD: 1 << 28,  # bytes by which the heap grows at once
}

GPU_DRIVERS = ("/dev/nvidiactl", "/dev/kfd")  # NVIDIA's and AMD's


def keep_freed_memory() -> bool:
    """Whether it was told. Not another libc, not where the user's environment says something about malloc, and not
    beside a GPU: there a model passes through host memory once, which every rank would keep.

    By itself it returns large blocks at once, and the next tensor faults each page of its memory anew: a third of an
    update's time. Peak memory is about a tenth higher. To be called before torch allocates.
    """
    if not _is_glibc() or _has_gpu() or _user_decides():
        return False
    libc = ctypes.CDLL(None)
    return all([libc.mallopt(setting, value) == 1 for setting, value in SETTINGS.items()])


def _is_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError, OSError):  # no Unix, or another libc
        return False


def _has_gpu() -> bool:
    """By the driver's file: torch would have to be imported to say more."""
    return any(os.path.exists(file) for file in GPU_DRIVERS)


def _user_decides() -> bool:
    tuned = "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    return tuned or any(name.startswith("MALLOC_") for name in os.environ)
