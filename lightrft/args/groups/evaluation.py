from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightrft.args.field import Witness, arg, unbuilt
from lightrft.args.groups.data import GENERATED, have_splits

if TYPE_CHECKING:
    from lightrft.args.surface import Args


def _no_data(args: Args) -> str | None:
    return None if args.evaluation.eval_data else "there is no --eval_data"


def _never(args: Args) -> str | None:
    last, every = args.training.max_steps, args.evaluation.eval_steps
    if last is not None and every is not None and every > last:
        return f"--max_steps {last} ends the run before"
    return _no_data(args)


def _no_splits(args: Args) -> str | None:
    if _no_data(args) or have_splits(args.evaluation.eval_data):
        return _no_data(args)
    return f"every source of --eval_data is a file, and a file is one split ({GENERATED} and datasets have several)"


def _rollout_batch_size(args: Args) -> int:
    return args.batch.rollout_batch_size


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
        matters=_no_splits,
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
        matters=_never,
        witness=Witness("--eval_steps 1", "metrics"),
    )
    max_eval_samples: int | None = arg(
        None,
        "Evaluate on the first so many prompts.",
        ge=1,
        unset="all",
        matters=_no_data,
        witness=Witness("--max_eval_samples 2", "summary"),
    )
    eval_n_samples: int = unbuilt("rewards", 1, "Responses to each evaluation prompt.", "--eval_n_samples 4", ge=1)
    eval_temperature: float = arg(
        0.0,
        "Temperature of evaluation; 0 = greedy.",
        ge=0,
        matters=_no_data,
        witness=Witness("--eval_temperature 1.0", "metrics", given="--eval_steps 1"),
    )
    eval_batch_size: int = arg(
        None,
        "Evaluation prompts decoded together.",
        ge=1,
        derive=_rollout_batch_size,
        unset="rollout_batch_size",
        matters=_no_data,
        witness=Witness("--eval_batch_size 1", "perf:eval_decode_batches", given="--eval_steps 1"),
    )
