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
LOOK = 40  # tokens at the end of a prompt; tags may be spelled letter by letter


def opening_of(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], begun: str | None = None) -> str:
    r"""The tags with which a prompt begins the response, such as the `<think>\n` that some chat templates write.

    `begun` is the text of an assistant's turn that the response goes on with: of it the tags are taken, wherever they
    stand in it; else those at the very end of the prompt.
    """
    if begun is not None:
        return "".join(TAG.findall(begun))
    text = tokenizer.decode(list(ids[-LOOK:]), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    found = AT_THE_END.search(str(text))
    return "" if found is None else found.group()


def special_tags(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """Tags that are special tokens, by id: leaving special tokens out of a text must not take these away."""
    ids = {tag: tokenizer.convert_tokens_to_ids(tag) for tag in TAGS}
    known = {tag: id for tag, id in ids.items() if isinstance(id, int) and tokenizer.decode([id]) == tag}
    return {id: tag for tag, id in known.items() if tokenizer.decode([id], skip_special_tokens=True) == ""}
