from __future__ import annotations

from dataclasses import dataclass

from lightrft.args.field import Witness, arg, unbuilt


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
    temperature_schedule: str = unbuilt(
        "estimators",
        "constant",
        "Course of the temperature from --temperature to --temperature_final.",
        "--temperature_schedule linear",
        choices=("constant", "linear", "cosine", "exponential"),
    )
    temperature_final: float | None = unbuilt(
        "estimators",
        None,
        "Temperature at the end of the schedule.",
        "--temperature_final 0.6",
        gt=0,
        unset="--temperature",
    )
    temperature_schedule_steps: int | None = unbuilt(
        "estimators", None, "Steps of the schedule.", "--temperature_schedule_steps 100", ge=0, unset="all steps"
    )
    use_fire: bool = unbuilt("estimators", False, "FIRE: sample the first token hot.", "--use_fire")
    first_token_temperature: float = unbuilt(
        "estimators", 10.0, "Temperature of that first token.", "--first_token_temperature 5", gt=0
    )
