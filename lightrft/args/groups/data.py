from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from lightrft.args.field import Witness, arg
from lightrft.args.groups.model import WITH_IMAGES

GENERATED = "reasoning_gym:"
LABEL = "label"
FILES = (".jsonl", ".json", ".csv", ".parquet")
WITH_TEMPLATE = "--pretrain tiny_chat --prompt_max_len 32 --max_len 40"


def any_generated(sources: Sequence[str]) -> bool:
    """Whether a source is generated, with its own verifier and its own splits."""
    return any(source.startswith(GENERATED) for source in sources)


def have_splits(sources: Sequence[str]) -> bool:
    """Whether a source can have several splits: a generated one, a dataset folder, or a dataset of the hub."""
    return any(PurePath(source).suffix not in FILES for source in sources)


@dataclass(frozen=True, kw_only=True)
class DataArgs:
    """Data"""

    prompt_data: tuple[str, ...] = arg(
        None,
        "Prompts: .jsonl, .json, .csv or .parquet files, dataset folders or names, reasoning_gym:<task>.",
        required=True,
        witness=Witness("--prompt_data eval.jsonl", "metrics"),
        path=True,
    )
    prompt_split: str = arg(
        "train",
        "Split of the training prompts, where a source has several.",
        witness=Witness(
            "--prompt_split test",
            "metrics",
            given="--prompt_data reasoning_gym:chain_sum --prompt_max_len 128 --max_len 136",
        ),
    )
    prompt_data_probs: tuple[float, ...] = arg(
        (),
        "Share of each --prompt_data source in the stream of prompts; scaled to sum to 1.",
        gt=0,
        unset="every prompt once an episode",
        witness=Witness("--prompt_data_probs 0.9 0.1", "metrics", given="--prompt_data add.jsonl eval.jsonl"),
    )
    max_samples: int | None = arg(
        None,
        "Train on at most so many prompts, the first of each source.",
        ge=1,
        unset="all",
        witness=Witness("--max_samples 4", "metrics"),
    )
    input_key: str = arg(
        "prompt",
        "Column of the prompt.",
        witness=Witness("--input_key question", "metrics", given="--prompt_data both.jsonl", without="--eval_data"),
    )
    label_key: str = arg(
        LABEL,
        "Column of the reference answer; verl's reward_model.ground_truth comes before the default one.",
        witness=Witness("--label_key other", "metrics", given="--prompt_data both.jsonl", without="--eval_data"),
    )
    apply_chat_template: bool | None = arg(
        None,
        "Write prompts in the tokenizer's chat template.",
        unset="on where the tokenizer has one",
        witness=Witness("--no-apply_chat_template", "metrics", given=WITH_TEMPLATE),
    )
    system_prompt: str | None = arg(
        None,
        "System message before every prompt.",
        unset="no system message",
        witness=Witness("--system_prompt 12", "metrics", given=WITH_TEMPLATE),
    )
    reference_key: str | None = arg(
        None,
        "Column of the reference answer where --label_key's is something else; needed in every row.",
        unset="the column of --label_key",
        witness=Witness("--reference_key other", "metrics", given="--prompt_data both.jsonl", without="--eval_data"),
    )
    source_key: str | None = arg(
        None,
        "Column that names where a row comes from; needed in every row.",
        unset="data_source, else source, else the file's name without its ending",
        witness=Witness(
            "--source_key where",
            "trajectories",
            given="--prompt_data both.jsonl --save_trajectories",
            without="--eval_data",
        ),
    )
    input_template: str | None = arg(
        None,
        "Text around each prompt, with {prompt} or one {} in its place.",
        unset="the prompt as it is",
        witness=Witness("--input_template 1{prompt}", "metrics"),
    )
    on_bad_row: str = arg(
        "error",
        "What a bad row does: error refuses the run, skip leaves the row out and counts it.",
        choices=("error", "skip"),
        witness=Witness("--on_bad_row error", "refused", given="--on_bad_row skip --prompt_data mixed.jsonl"),
    )
    images_key: str = arg(
        "images",
        "Column of the images; where it is not given, image is read too. none makes plain columns of all media.",
        witness=Witness("--images_key images", "refused", given="--images_key none --prompt_data pictures.jsonl"),
    )
    dataloader_num_workers: int = arg(
        0,
        "Threads that read images ahead, those of the next prompts while responses are sampled; 0 reads them when they "
        "are taken.",
        ge=0,
        witness=Witness("--dataloader_num_workers 2", "perf:prompts_read_ahead", given=WITH_IMAGES),
    )
