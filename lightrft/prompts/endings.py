"""End tokens behind a prompt: an answer goes on from there, so those that a tokenizer added are removed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from lightrft.types import Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def closing_ids(tokenizer: PreTrainedTokenizerBase, ends: Collection[int]) -> frozenset[int]:
    """`ends`, and the tokens that the tokenizer itself calls the end of a text."""
    own: Any = tokenizer.eos_token_id, tokenizer.sep_token_id
    return frozenset(token for token in (*ends, *own) if token is not None)


def unclosed(ids: Sequence[int], text: Sequence[int], closing: Collection[int]) -> Sequence[int]:
    """The ids without the closing tokens behind the text's own ids; all of them, where other tokens stand there too.

    text: ids of the same text without special tokens, so a closing token that was typed is among them.
    """
    for end in range(len(ids), len(text) - 1, -1):
        if list(ids[end - len(text) : end]) == list(text):
            return ids[:end]
        if ids[end - 1] not in closing:
            break
    return ids


def taken_off(who: str, name: str) -> str:
    """For the user. who: what has set it there."""
    return f"the {who} sets the end token {name!r} behind a prompt: taken off, an answer goes there"


def ending_closed(prompts: Sequence[Prompt], closing: Collection[int]) -> list[Prompt]:
    """Prompts that still end in an end token; a BOS alone may be the same token."""
    return [prompt for prompt in prompts if len(prompt.token_ids) > 1 and prompt.token_ids[-1] in closing]
