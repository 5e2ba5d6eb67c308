"""From messages to token ids, once; and from a response's ids back to text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lightrft.errors import Refused
from lightrft.types import Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode_prompts(
    prompts: Sequence[Prompt],
    tokenizer: PreTrainedTokenizerBase,
    *,
    apply_chat_template: bool | None,
    prompt_max_len: int,
    flag: str = "--prompt_data",
) -> list[Prompt]:
    """The prompts with `token_ids`, in the same order.

    `apply_chat_template`: True and False are taken at their word; None means "where the tokenizer has one". Without a
    template the messages' contents are joined by newlines and get the tokenizer's own special tokens. Nothing is ever
    truncated: raises `Refused` for a prompt of more than `prompt_max_len` tokens, or of none.
    """
    templated = _use_template(tokenizer, apply_chat_template)
    encoded = [replace(prompt, token_ids=_encode(prompt, tokenizer, templated, flag)) for prompt in prompts]
    _check_lengths(encoded, prompt_max_len, flag)
    return encoded


def decode_response(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """A response as rewards see it: no special tokens, and spaces as they were sampled."""
    text = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert isinstance(text, str), "one sequence of ids is one text"
    return text


def _use_template(tokenizer: PreTrainedTokenizerBase, wanted: bool | None) -> bool:
    has_template = bool(getattr(tokenizer, "chat_template", None))
    if wanted and not has_template:
        where = f"the tokenizer of {tokenizer.name_or_path or '--pretrain'}"
        raise Refused(f"--apply_chat_template: {where} has no chat template; --no-apply_chat_template works")
    return has_template if wanted is None else wanted


def _encode(prompt: Prompt, tokenizer: PreTrainedTokenizerBase, templated: bool, flag: str) -> tuple[int, ...]:
    if not templated:
        return tuple(tokenizer("\n".join(message["content"] for message in prompt.messages))["input_ids"])
    try:
        # Tokenised by the template's own call: it adds no special tokens, so a BOS in the template stays single.
        encoding: Any = tokenizer.apply_chat_template(
            [dict(message) for message in prompt.messages], add_generation_prompt=True, tokenize=True, return_dict=True
        )
    except Exception as error:  # templates raise what their authors chose, such as "System role not supported"
        reason = " ".join(str(error).split())
        raise Refused(f"{flag} {_place(prompt)}: the chat template refuses these messages: {reason}") from error
    return tuple(encoding["input_ids"])


def _check_lengths(prompts: Sequence[Prompt], limit: int, flag: str) -> None:
    for prompt in prompts:
        if not prompt.token_ids:
            raise Refused(f"{flag} {_place(prompt)}: the prompt has no tokens; it needs some text")
    long = [prompt for prompt in prompts if len(prompt.token_ids) > limit]
    if long:
        longest = max(len(prompt.token_ids) for prompt in long)
        others = f" ({len(long) - 1} more are too long)" if len(long) > 1 else ""
        length = f"{len(long[0].token_ids)} tokens, over --prompt_max_len {limit}"
        raise Refused(f"{flag} {_place(long[0])}: {length}{others}; --prompt_max_len {longest} would admit all")


def _place(prompt: Prompt) -> str:
    return prompt.where or f"prompt {prompt.id}"
