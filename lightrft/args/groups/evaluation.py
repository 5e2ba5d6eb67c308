from __future__ import annotations

from dataclasses import dataclass

from lightrft.args.field import Witness, arg, unbuilt


@dataclass(frozen=True, kw_only=True)
class EvaluationArgs:
    """Evaluation"""

    eval_data: tuple[str, ...] = arg(
        (),
        "Held-out prompts, evaluated before and after training.",
        witness=Witness("--eval_data add.jsonl", "summary"),
        path=True,
    )
    eval_split: str = arg(
        "test",
        "Split of the evaluation prompts, where a source has several.",
        witness=Witness(
            "--eval_split train",
            "metrics",
            given="--eval_data reasoning_gym:chain_sum --prompt_max_len 128 --max_len 136 --eval_steps 1",
        ),
    )
    eval_steps: int | None = arg(
        None,
        "Evaluate every so many steps as well.",
        ge=1,
        unset="only before and after",
        witness=Witness("--eval_steps 1", "metrics"),
    )
    max_eval_samples: int | None = arg(
        None,
        "Evaluate on the first so many prompts.",
        ge=1,
        unset="all",
        witness=Witness("--max_eval_samples 2", "summary"),
    )
    eval_n_samples: int = unbuilt("rewards", 1, "Responses to each evaluation prompt.", "--eval_n_samples 4", ge=1)
    eval_temperature: float = arg(
        0.0,
        "Temperature of evaluation; 0 = greedy.",
        ge=0,
        witness=Witness("--eval_temperature 1.0", "metrics", given="--eval_steps 1"),
    )
    eval_batch_size: int = arg(
        None,
        "Evaluation prompts decoded together.",
        ge=1,
        derive=lambda values: values["rollout_batch_size"],
        unset="rollout_batch_size",
        witness=Witness("--eval_batch_size 1", "perf:eval_decode_batches", given="--eval_steps 1"),
    )
