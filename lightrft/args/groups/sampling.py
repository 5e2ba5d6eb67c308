from __future__ import annotations

from dataclasses import dataclass

from lightrft.args.field import Witness, arg


@dataclass(frozen=True, kw_only=True)
class SamplingArgs:
    """Sampling"""

    temperature: float = arg(
        1.0,
        "Temperature of training samples; it enters the trained log-probabilities too.",
        gt=0,
        recommended=(0.6, 1.2),
        witness=Witness("--temperature 0.7", "metrics"),
    )
    top_p: float = arg(
        0.9,
        "Sample from the most likely tokens that hold this probability; 1 = off.",
        gt=0,
        le=1,
        recommended=(0.8, 1.0),
        witness=Witness("--top_p 0.5", "metrics"),
    )
    top_k: int = arg(
        -1,
        "Sample from this many most likely tokens; -1 = off.",
        ge=-1,
        witness=Witness("--top_k 1", "metrics"),
    )
    min_p: float = arg(
        0.0,
        "Sample from tokens at least this share as likely as the likeliest; 0 = off.",
        ge=0,
        le=1,
        witness=Witness("--min_p 0.9", "metrics"),
    )
    stop: tuple[str, ...] = arg((), "Texts that end a response.", witness=Witness("--stop 0 1 2 3 4", "metrics"))
