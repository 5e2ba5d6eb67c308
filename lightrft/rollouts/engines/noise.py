"""Counter-based noise: the uniform number for token t of a response depends on the response's seed and t only.

Philox is NumPy's counter-based bit generator, and `random_raw` is the part of it whose stream NumPy promises to keep.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np


def response_seed(run_seed: int, step: int, position: int, prompt_id: str, sample: int) -> int:
    """64-bit seed of one response. `position` tells apart two visits to one prompt within a step."""
    key = f"{run_seed}/{step}/{position}/{prompt_id}/{sample}".encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big")


def uniforms(seeds: Sequence[int], length: int) -> np.ndarray:
    """[len(seeds), length] float64 in [0, 1): row i is the stream of seed i, column t belongs to token t."""
    rows = [np.random.Philox(key=seed).random_raw(length) for seed in seeds]
    return (np.stack(rows) >> np.uint64(11)) * 2.0**-53
