"""The tags of thoughts and answers, where a prompt has begun the response with them or a tokenizer hides them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
TAG = re.compile("|".join(TAGS), re.IGNORECASE)
AT_THE_END = re.compile(rf"(?:(?:{TAG.pattern})\s*)+\Z", re.IGNORECASE)
MOST_TOKENS = 40  # of tags at the end of a prompt; they may be spelled letter by letter


def opening_of(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], begun: str | None = None) -> str:
    r"""The tags with which a prompt begins the response, such as the `<think>\n` that some chat templates write.

    `begun` is the text of an assistant's turn that the response goes on with: of it the tags are taken, wherever they
    stand in it; else those at the very end of the prompt.
    """
    if begun is not None:
        return "".join(TAG.findall(begun))
    text = tokenizer.decode(list(ids[-MOST_TOKENS:]), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    tags = AT_THE_END.search(str(text))
    return "" if tags is None else tags.group()


def special_tags(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """Tags that are special tokens, by id: where special tokens are left out of a text, these must stay."""
    ids = {tag: tokenizer.convert_tokens_to_ids(tag) for tag in TAGS}
    tokens = {tag: id for tag, id in ids.items() if isinstance(id, int) and tokenizer.decode([id]) == tag}
    return {id: tag for tag, id in tokens.items() if tokenizer.decode([id], skip_special_tokens=True) == ""}
