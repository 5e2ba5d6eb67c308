"""What stands between prompts and an engine: a prompt becomes a request, and a response's ids become text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from lightrft.prompts.bad_rows import BadRow
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
        self._pool = ThreadPoolExecutor(readers, "reads images") if readers else None
        self._read: dict[str, Future[Request]] = {}  # by prompt, of those that are read ahead

    def request(self, prompt: Prompt, seeds: Sequence[int]) -> Request:
        """For one sample of each seed. Raises `BadRow`, for a prompt with images alone."""
        if not prompt.has_media:
            return Request(prompt.token_ids, tuple(seeds), where=prompt.where)
        read = self._read.pop(prompt.id, None)
        return replace(self._encoded(prompt) if read is None else read.result(), seeds=tuple(seeds))

    def read_ahead(self, prompts: Sequence[Prompt]) -> int:
        """Begins to read the images of prompts that are asked for next, where there are readers; how many it has begun
        with."""
        new = [each for each in prompts if self._pool and each.has_media and each.id not in self._read]
        self._read |= {prompt.id: self._pool.submit(self._encoded, prompt) for prompt in new if self._pool}
        return len(new)

    def fault_of(self, prompt: Prompt) -> str | None:
        """Why it cannot be used; None where it can, and then it is read already when it is asked for."""
        if not prompt.has_media:
            return None
        read = self._read.get(prompt.id) or _done(partial(self._encoded, prompt))
        fault = read.exception()
        if fault is None:
            self._read[prompt.id] = read
            return None
        self._read.pop(prompt.id, None)
        if not isinstance(fault, BadRow):
            raise fault
        return str(fault)

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


def _done(make: Callable[[], Request]) -> Future[Request]:
    """Of work that is done at once."""
    future: Future[Request] = Future()
    try:
        future.set_result(make())
    except Exception as error:
        future.set_exception(error)
    return future
