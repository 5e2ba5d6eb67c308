"""Training on the tokens of highest entropy alone (arXiv:2506.01939)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

ROUNDING = 1e-5  # of an entropy in float32, generously


def entropy_threshold(entropies: Tensor, ratio: float) -> float:
    """The (1 - ratio) quantile, linearly interpolated, of the entropies [N] of an optimizer step's trained tokens."""
    ordered = entropies.double().sort().values
    place = (1 - ratio) * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return float(ordered[below] + (ordered[above] - ordered[below]) * (place - below))


def high_entropy_mask(entropy: Tensor, mask: Tensor, threshold: float) -> Tensor:
    """[B, T]: 1 on trained tokens at or above the threshold. Denominators stay those of the whole mask.

    The first tokens of a group's responses have one entropy, but for rounding: where it is the threshold, all of them
    are at it, however rows are batched.
    """
    return mask * (entropy >= threshold - ROUNDING)
