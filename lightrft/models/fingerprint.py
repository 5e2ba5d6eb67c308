"""A number that tells one tensor's contents from another's, and that adds up over its parts."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
MODULUS = 1 << 64
CHUNK = {"cpu": 1 << 18}  # elements that fit a core's cache; elsewhere
LARGEST_CHUNK = 1 << 26  # bounds the memory for the products


def fingerprint(tensor: Tensor) -> int:
    """The sum of b (2 b + 1) over the elements' bits b, read as integers of w bits: each term modulo 2^w, all of it
    modulo 2^64.

    The order of the elements does not matter. So q, k and v that an engine keeps as one tensor have the sum of the
    three, and so have the shards of a tensor. A change of any single element shows, since b (2 b + 1) modulo 2^w is
    another for every b; and two that are moved apart by as much do not make up for each other, as in a plain sum.
    """
    bits = tensor.detach().contiguous().view(BITS[tensor.element_size()]).flatten()
    chunks = bits.split(CHUNK.get(bits.device.type, LARGEST_CHUNK))
    return int(reduce(torch.add, map(_summed, chunks))) % MODULUS


def _summed(bits: Tensor) -> Tensor:
    return (bits + bits).add_(1).mul_(bits).sum(dtype=torch.int64)
