from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightrft.args.field import Witness, arg

if TYPE_CHECKING:
    from lightrft.args.surface import Args


def _rest_of_length(args: Args) -> int:
    return args.model.max_len - args.model.prompt_max_len


@dataclass(frozen=True, kw_only=True)
class ModelArgs:
    """Model"""

    pretrain: str = arg(
        None,
        "Model and tokenizer to train: a path or a hub name.",
        required=True,
        witness=Witness("--pretrain no-such-model", "refused"),
    )
    max_len: int = arg(
        4096, "Tokens of prompt and response together.", ge=2, witness=Witness("--max_len 18", "metrics")
    )
    prompt_max_len: int = arg(
        2048,
        "Tokens of the prompt; below --max_len.",
        ge=1,
        witness=Witness("--prompt_max_len 22", "metrics"),
    )
    max_new_tokens: int = arg(
        None,
        "Response budget in tokens.",
        ge=1,
        aliases=("generate_max_len",),
        derive=_rest_of_length,
        unset="max_len - prompt_max_len",
        witness=Witness("--max_new_tokens 2", "metrics"),
    )
    attn_implementation: str | None = arg(
        None,
        "Attention kernel of the model.",
        choices=("eager", "sdpa", "flash_attention_2"),
        unset="the model's own",
        witness=Witness("--attn_implementation eager", "run"),
    )
    trust_remote_code: bool = arg(
        False,
        "Run Python code that comes with the model.",
        witness=Witness("--no-trust_remote_code", "refused", given="--pretrain tiny_remote --trust_remote_code"),
    )
    cache_dir: str | None = arg(
        None,
        "Folder of models downloaded from the hub.",
        unset="the hub library's own",
        witness=Witness("--cache_dir no_such_hub", "refused", given="--pretrain tests/tiny --cache_dir hub"),
    )
    disable_fast_tokenizer: bool = arg(
        False,
        "Refused: transformers 5 has one implementation of a tokenizer, no second one in Python.",
        witness=Witness("--disable_fast_tokenizer", "refused"),
    )
