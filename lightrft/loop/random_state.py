"""The random numbers of users' reward functions: their generators' states go into each checkpoint, one file a rank.

Our own noise is counter-based and has no state.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch


def random_state() -> dict[str, Any]:
    """Of torch, numpy and Python, in types that JSON knows: arrays are their bytes in hexadecimal. Where a GPU is in
    use, also torch's on this rank's."""
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    version, internal, gauss = random.getstate()
    on_gpu = {"cuda": torch.cuda.get_rng_state().numpy().tobytes().hex()} if torch.cuda.is_initialized() else {}
    return {
        **on_gpu,
        "torch": torch.get_rng_state().numpy().tobytes().hex(),
        "numpy": [kind, np.asarray(keys, "<u4").tobytes().hex(), position, has_gauss, cached],
        "python": [version, np.asarray(internal, "<u4").tobytes().hex(), gauss],
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(_bytes(state["torch"]))
    if "cuda" in state and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(_bytes(state["cuda"]))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, _integers(keys), *rest))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(_integers(internal).tolist()), gauss))


def _bytes(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)


def _integers(text: str) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(text), "<u4")


def _file(folder: Path, rank: int) -> Path:
    return folder / f"random_{rank}.json"


def write_random_state(folder: Path, rank: int, state: Mapping[str, Any]) -> Path:
    """The file that was written."""
    _file(folder, rank).write_text(json.dumps(state))
    return _file(folder, rank)


def read_random_state(folder: Path, rank: int) -> dict[str, Any] | None:
    """None for a rank that the run did not have then: it goes on from the seed."""
    file = _file(folder, rank)
    return json.loads(file.read_text()) if file.exists() else None
