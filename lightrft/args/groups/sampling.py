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
    stop: tuple[str, ...] = arg(
        (),
        "Texts that end a response. They stay in it, for training and for rewards; --reward_fn exact needs none.",
        witness=Witness("--stop 0 1 2 3 4", "metrics"),
    )
    temperature_schedule: str = arg(
        "constant",
        "Course of the temperature from --temperature to --temperature_final.",
        choices=("constant", "linear", "cosine", "exponential"),
        witness=Witness("--temperature_schedule linear", "metrics", given="--temperature_final 0.2"),
    )
    temperature_final: float | None = arg(
        None,
        "Temperature at the end of the schedule.",
        gt=0,
        unset="--temperature",
        witness=Witness(
            "--temperature_final 0.2", "metrics", given="--temperature_schedule linear --temperature_final 0.9"
        ),
    )
    temperature_schedule_steps: int | None = arg(
        None,
        "Steps of the schedule.",
        ge=0,
        unset="all steps",
        witness=Witness(
            "--temperature_schedule_steps 50", "metrics", given="--temperature_schedule linear --temperature_final 0.2"
        ),
    )
    use_fire: bool = arg(
        False,
        "FIRE: sample the first token hot.",
        witness=Witness("--use_fire", "metrics"),
    )
    first_token_temperature: float = arg(
        10.0,
        "Temperature of that first token.",
        gt=0,
        witness=Witness("--first_token_temperature 1.5", "metrics", given="--use_fire"),
    )
    fire_mask_first_token: bool = arg(
        False,
        "Do not train on that first token.",
        witness=Witness("--fire_mask_first_token", "metrics", given="--use_fire"),
    )
