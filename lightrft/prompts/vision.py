"""A prompt with images or videos, from messages to what its model takes; when it is taken, since media are large."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lightrft.prompts.bad_rows import BadRow
from lightrft.prompts.template import options_of
from lightrft.types import Media, MediaInputs, Prompt, Request

if TYPE_CHECKING:
    from torch import Tensor

ROWS = ("input_ids", "attention_mask")  # what a processor makes of a text, and not of media
BLANK = 64  # pixels of a side
ALONE = Prompt(
    "alone",
    ({"role": "user", "content": ({"type": "image"}, {"type": "text", "text": "."})},),
    images=("alone",),
)
Positions = Callable[[Mapping[str, Any]], "Tensor | None"]


@dataclass(frozen=True)
class Vision:
    """read: the media of a prompt, decoded. positions: of its tokens, by the model's own count. placeholders: ids in
    whose places features stand. templated: whether messages go through the chat template.
    """

    processor: Any
    read: Callable[[Prompt], Media]
    positions: Positions
    placeholders: frozenset[int]
    templated: bool
    longest: int

    def request(self, prompt: Prompt, seeds: Sequence[int]) -> Request:
        """Raises `BadRow`, with its place, for media that cannot be read, and for a prompt that is too long: images
        are never cut."""
        media = self.read(prompt)
        try:
            return self._request(prompt, media, seeds)
        except BadRow as fault:
            raise BadRow(f"{prompt.where or prompt.id}: {fault}") from fault

    def _request(self, prompt: Prompt, media: Media, seeds: Sequence[int]) -> Request:
        text = self._text(prompt, media.slices)
        bare = self._bare(text, media)
        made = self._processed(text, media)
        ids = tuple(made["input_ids"][0].tolist())
        self._check(ids, media)
        return Request(ids, tuple(seeds), self._inputs(made, len(ids)), media, bare, prompt.where)

    def blank(self) -> Request:
        """A small grey image: for whoever has to run the whole model, and has no image."""
        from PIL import Image

        grey = Media(images=(Image.new("RGB", (BLANK, BLANK), (128, 128, 128)),))
        return replace(self, read=lambda _: grey, longest=sys.maxsize).request(ALONE, ())

    def read_by(self, processor: Any, image: Any) -> Mapping[str, Any]:
        """What another processor makes of an image: an engine may have its own."""
        return replace(self, processor=processor)._processed(self._text(ALONE), Media(images=(image,)))

    def _text(self, prompt: Prompt, slices: Sequence[int] = ()) -> str:
        """slices: for each image of the prompt, how many of them it gave: a volume has several."""
        counts = iter(slices)
        messages = [{**message, "content": _sliced(message["content"], counts)} for message in prompt.messages]
        if self.templated:
            options = {"add_generation_prompt": True, **options_of(prompt)}
            return self.processor.tokenizer.apply_chat_template(messages, tokenize=False, **options)
        return "\n".join(self._plain(message["content"]) for message in messages)

    def _plain(self, content: Any) -> str:
        if isinstance(content, str):
            return content
        return "".join(part["text"] if part["type"] == "text" else self._mark(part["type"]) for part in content)

    def _mark(self, kind: str) -> str:
        """What stands for an image or a video in a text, before the processor writes its placeholders there."""
        mark = getattr(self.processor, "boi_token", None) if kind == "image" else None
        mark = mark or getattr(self.processor, f"{kind}_token", None)
        if mark is None:
            raise BadRow(f"{type(self.processor).__name__} takes no {kind}s")
        return mark

    def _bare(self, text: str, media: Media) -> tuple[int, ...]:
        """The text's ids, with one mark for each image or video. A text that names a mark itself is refused."""
        for kind, given in (("image", media.images), ("video", media.videos)):
            marks = text.count(self._mark(kind)) if given else 0
            if marks != len(given):
                raise BadRow(f"it has {len(given)} {kind}s, and {marks} times {self._mark(kind)!r} in its text")
        return tuple(self.processor.tokenizer(text, add_special_tokens=not self.templated)["input_ids"])

    def _processed(self, text: str, media: Media) -> Any:
        given = {"images": list(media.images), "videos": list(media.videos)}
        options: Any = {name: value for name, value in given.items() if value}
        try:
            return self.processor(text=[text], **options, add_special_tokens=not self.templated, return_tensors="pt")
        except Exception as error:  # processors raise what their authors chose, such as for a very narrow image
            reason = " ".join(str(error).split()) or type(error).__name__
            raise BadRow(f"the processor refuses its images: {reason[:200]}") from error

    def _check(self, ids: Sequence[int], media: Media) -> None:
        if len(ids) > self.longest:
            images = f"with its {len(media.images)} images" if media.images else "with its videos"
            raise BadRow(f"{len(ids)} tokens {images}, over --prompt_max_len {self.longest}; --max_pixels makes fewer")

    def _inputs(self, made: Any, length: int) -> MediaInputs | None:
        beside = {name: value for name, value in made.items() if name not in ROWS}
        rows = {name: value[0] for name, value in beside.items() if _is_row(value, length)}
        features = {name: value for name, value in beside.items() if name not in rows}
        return MediaInputs(features, rows, self.positions(made))


def _sliced(content: Any, counts: Iterator[int]) -> Any:
    """With a part for each slice of an image."""
    if isinstance(content, str):
        return content
    return [part for part in content for _ in range(next(counts, 1) if part["type"] == "image" else 1)]


def _is_row(value: Any, length: int) -> bool:
    """Whether it has an integer for each token."""
    return tuple(value.shape) == (1, length) and not value.is_floating_point()
