"""What stands between prompts and an engine: a prompt becomes a request, and a response's ids become text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from lightrft.prompts.reading import Reader
from lightrft.prompts.tags import special_tags
from lightrft.types import Prompt, Request

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lightrft.prompts.vision import Vision


class Encoder:
    """Asked when a prompt is taken, so that images need not be held for a whole run.

    Texts are tokenised before, all at the start (encoding.py): their lengths are checked there. vision: for prompts
    with images or videos, of a model that sees. readers: threads that read images while others work.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vision: Vision | None = None, readers: int = 0) -> None:
        self.tokenizer, self.tags, self.vision = tokenizer, special_tags(tokenizer), vision
        self.reader = Reader(self._encoded, readers)

    def request(self, prompt: Prompt, seeds: Sequence[int]) -> Request:
        """For one sample of each seed. Raises `BadRow`, for a prompt with images alone."""
        if not prompt.has_media:
            return Request(prompt.token_ids, tuple(seeds), where=prompt.where, opening=prompt.opening)
        return replace(self.reader.request(prompt), seeds=tuple(seeds))

    def blank(self) -> Request | None:
        """A prompt with an image, for a model that sees."""
        return None if self.vision is None else self.vision.blank()

    def _encoded(self, prompt: Prompt) -> Request:
        assert self.vision is not None, "preflight refuses images for a model that does not see"
        return self.vision.request(prompt, ())

    def response(self, ids: Sequence[int]) -> str:
        """As rewards see it: no special tokens but the tags of thoughts, and spaces as they were sampled."""
        text, start = "", 0
        for end in [index for index, id in enumerate(ids) if id in self.tags]:
            text, start = text + self._text(ids[start:end]) + self.tags[ids[end]], end + 1
        return text + self._text(ids[start:])

    def as_the_model_sees(self, prompt: Prompt) -> str:
        """The encoded prompt as text: template, special tokens and all; one mark for each image or video."""
        return self._text(self.request(prompt, ()).bare_ids or prompt.token_ids, special=True)

    def _text(self, ids: Sequence[int], *, special: bool = False) -> str:
        text = self.tokenizer.decode(list(ids), skip_special_tokens=not special, clean_up_tokenization_spaces=False)
        assert isinstance(text, str), "one sequence of ids is one text"
        return text
