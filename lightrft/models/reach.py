"""How far back the layers of a model look, as its configuration says."""

from __future__ import annotations

import math
from typing import Any


def reach(config: Any) -> float:
    """Positions that a token sees, itself included, in the layer that sees the fewest: inf where all see all; 0 where
    a layer is no attention, as in linear attention and convolutions."""
    sizes = {
        "full_attention": math.inf,
        "sliding_attention": getattr(config, "sliding_window", None) or math.inf,
        "chunked_attention": getattr(config, "attention_chunk_size", None) or math.inf,
    }
    return min(sizes.get(kind, 0) for kind in _kinds(config))


def _kinds(config: Any) -> set[str]:
    """Older configurations say it of all layers at once."""
    listed = getattr(config, "layer_types", None)
    windowed = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    return set(listed or ["sliding_attention" if windowed else "full_attention"])
