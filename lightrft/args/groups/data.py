from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightrft.args.field import Witness, arg

if TYPE_CHECKING:
    from lightrft.args.surface import Args

GENERATED = "reasoning_gym:"
WITH_TEMPLATE = "--pretrain tiny_chat --prompt_max_len 32 --max_len 40"


def any_generated(sources: Sequence[str]) -> bool:
    """Whether a source is generated, with its own verifier and its own splits."""
    return any(source.startswith(GENERATED) for source in sources)


def _files_only(args: Args) -> str | None:
    if any_generated(args.data.prompt_data):
        return None
    return f"every source of --prompt_data is a file, and a file is one split (only {GENERATED} sources have several)"


@dataclass(frozen=True, kw_only=True)
class DataArgs:
    """Data"""

    prompt_data: tuple[str, ...] = arg(
        None,
        "Prompts: files, or reasoning_gym:<task>.",
        required=True,
        witness=Witness("--prompt_data eval.jsonl", "metrics"),
    )
    prompt_split: str = arg(
        "train",
        "Split of generated prompts.",
        matters=_files_only,
        witness=Witness(
            "--prompt_split test",
            "metrics",
            given="--prompt_data reasoning_gym:chain_sum --prompt_max_len 128 --max_len 136",
        ),
    )
    input_key: str = arg("prompt", "Column of the prompt.", witness=Witness("--input_key no_such_column", "refused"))
    label_key: str = arg(
        "label", "Column of the reference answer.", witness=Witness("--label_key no_such_column", "refused")
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
