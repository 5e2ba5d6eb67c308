"""End tokens behind a prompt: an answer goes on from there, so one that was added to the text is taken off again."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from lightrft.types import Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def closing_ids(tokenizer: PreTrainedTokenizerBase, ends: Collection[int]) -> frozenset[int]:
    """`ends`, and what the tokenizer itself names as the end of a text."""
    own: Any = tokenizer.eos_token_id, tokenizer.sep_token_id
    return frozenset(token for token in (*ends, *own) if token is not None)


def left_open(ids: Sequence[int], text: Sequence[int], closing: Collection[int]) -> Sequence[int]:
    """The ids without the closing tokens that stand behind the ids of the text itself; all, where there are others.

    text: ids of the same text without special tokens, so a closing token that was typed is among them.
    """
    for end in range(len(ids), len(text) - 1, -1):
        if list(ids[end - len(text) : end]) == list(text):
            return ids[:end]
        if ids[end - 1] not in closing:
            break
    return ids


def finished(prompts: Sequence[Prompt], closing: Collection[int]) -> list[Prompt]:
    """Those that end in an end token still; a BOS alone may be the same token."""
    return [prompt for prompt in prompts if len(prompt.token_ids) > 1 and prompt.token_ids[-1] in closing]
