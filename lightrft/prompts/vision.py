"""A prompt with images or videos, from messages to what its model takes; when it is taken, since media are large."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import repeat
from typing import TYPE_CHECKING, Any

from lightrft.prompts.bad_rows import BadRow
from lightrft.prompts.media.marks import kinds_in, parts_in, with_slices
from lightrft.prompts.placeholders import Mark, misfit, parts_of, pieces_of, runs_of
from lightrft.prompts.tags import opening_of
from lightrft.prompts.template import begun_answer
from lightrft.prompts.vision_texts import Texts
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
ALONE_MOVING = Prompt(
    "alone",
    ({"role": "user", "content": ({"type": "video"}, {"type": "text", "text": "."})},),
    videos=("alone",),
)
Positions = Callable[[Mapping[str, Any]], "Tensor | None"]


@dataclass(frozen=True)
class Vision:
    """read: the media of a prompt, decoded. positions: of its tokens, by the model's own count. placeholders: ids in
    whose places features stand. texts: what prompts are written as.
    """

    processor: Any
    read: Callable[[Prompt], Media]
    positions: Positions
    placeholders: frozenset[int]
    texts: Texts
    longest: int
    rate: Fraction | None = None  # placeholders for each piece of an image; None where it differs, or is not measured

    def request(self, prompt: Prompt, seeds: Sequence[int]) -> Request:
        """Raises `BadRow`, with its place, for media that cannot be read, and for a prompt that is too long: images
        are never cut."""
        media = self.read(prompt)
        try:
            return self._request(prompt, media, seeds)
        except BadRow as fault:
            raise BadRow(f"{prompt.where or prompt.id}: {fault}") from fault

    def _request(self, prompt: Prompt, media: Media, seeds: Sequence[int]) -> Request:
        prompt = self.texts.placed(prompt)
        self._check_marks(prompt)
        text = self.texts.text(prompt, media.slices)
        bare = self._bare(text, media)
        made = self._processed(text, media)
        ids = tuple(made["input_ids"][0].tolist())
        self._check(ids, media)
        inputs = self._inputs(made, len(ids))
        self._check_places(ids, inputs, self._marks(prompt, media, bare))
        opening = opening_of(self.processor.tokenizer, bare, begun_answer(prompt))
        return Request(ids, tuple(seeds), inputs, media, bare, prompt.where, opening)

    def blank(self, width: int = BLANK, height: int = BLANK) -> Request:
        """A small grey image: for whoever has to run the whole model, and has no image."""
        from PIL import Image

        return self.of_image(Image.new("RGB", (width, height), (128, 128, 128)))

    def of_image(self, image: Any) -> Request:
        """A prompt of nothing else."""
        return replace(self, read=lambda _: Media(images=(image,)), longest=sys.maxsize).request(ALONE, ())

    def read_by(self, processor: Any, media: Media) -> Mapping[str, Any]:
        """What another processor makes of an image, or of a video: an engine may have its own."""
        text = self.texts.text(ALONE if media.images else ALONE_MOVING)
        return replace(self, processor=processor)._processed(text, media)

    def measured(self) -> Vision:
        """With the rate at which pieces of images become tokens, where all images have the same."""
        rates = {self._rate(self.blank(width)) for width in (BLANK, 3 * BLANK)}
        return replace(self, rate=rates.pop() if len(rates) == 1 else None)

    def _rate(self, request: Request) -> Fraction:
        assert request.mm_inputs is not None, "it has an image"
        return Fraction(sum(runs_of(request.prompt_ids, self.placeholders)), pieces_of(request.mm_inputs.features))

    def _marks(self, prompt: Prompt, media: Media, bare: Sequence[int]) -> list[Mark]:
        kinds = kinds_in(with_slices(prompt.messages, media.slices))
        ids = {self.processor.tokenizer.convert_tokens_to_ids(self.texts.mark(kind)) for kind in {*kinds}}
        joins = [at > 0 and bare[at - 1] in ids for at, id in enumerate(bare) if id in ids]
        return list(map(Mark, kinds, joins if len(joins) == len(kinds) else repeat(True)))  # a mark of several tokens

    def _check_places(self, ids: Sequence[int], inputs: MediaInputs, marks: Sequence[Mark]) -> None:
        """The model would fail, or read one image in another's place."""
        parts = parts_of(inputs.features, marks)
        if parts and self.rate is not None:
            fault = misfit(runs_of(ids, self.placeholders), parts, self.rate)
            if fault is not None:
                raise BadRow(fault)

    def _check_marks(self, prompt: Prompt) -> None:
        """Each image has a part of the messages, and no text names what stands for one."""
        parts = parts_in(prompt.messages)
        for kind, given in (("image", prompt.images), ("video", prompt.videos)):
            places = sum(part["type"] == kind for part in parts)
            if places != len(given):
                raise BadRow(f"it has {len(given)} {kind}s, and {places} places for them in its messages")
            mark = self.texts.mark(kind) if given else self._placeholder(kind)
            if mark is not None and any(mark in part.get("text", "") for part in parts):
                what = f"one of its texts holds {mark!r}, which stands for {'an' if kind == 'image' else 'a'} {kind}"
                where = f"; write <{kind}> where each of the row's {kind}s stands"
                raise BadRow(what + (where if given else ", and the row has none"))

    def _placeholder(self, kind: str) -> str | None:
        """The mark of such media where it is a token that the model looks for."""
        mark = self.texts.mark_of(kind)
        is_read = mark is not None and self.processor.tokenizer.convert_tokens_to_ids(mark) in self.placeholders
        return mark if is_read else None

    def _bare(self, text: str, media: Media) -> tuple[int, ...]:
        """The text's ids, with one mark for each image or video."""
        for kind, given in (("image", media.images), ("video", media.videos)):
            mark = self.texts.mark(kind) if given else ""
            marks = text.count(mark) if given else 0
            if marks != len(given):
                raise BadRow(f"the chat template writes {mark!r} {marks} times for {len(given)} {kind}s")
        return self.texts.ids(text)

    def _processed(self, text: str, media: Media) -> Any:
        given = {"images": list(media.images), "videos": list(media.videos)}
        options: Any = {name: value for name, value in given.items() if value} | _as_they_are(media)
        try:
            made = self.processor(text=[text], **options, add_special_tokens=self.texts.bare, return_tensors="pt")
        except Exception as error:  # processors raise what their authors chose, such as for a very narrow image
            reason = " ".join(str(error).split()) or type(error).__name__
            raise BadRow(f"the processor refuses its images: {reason[:200]}") from error
        return _without_last(made, self.texts.ends_added(text))

    def _check(self, ids: Sequence[int], media: Media) -> None:
        if len(ids) > self.longest:
            images = f"{len(media.images)} images" if len(media.images) > 1 else "image" if media.images else "videos"
            raise BadRow(
                f"{len(ids)} tokens with its {images}, over --prompt_max_len {self.longest}; --max_pixels makes fewer"
            )

    def _inputs(self, made: Any, length: int) -> MediaInputs:
        beside = {name: value for name, value in made.items() if name not in ROWS}
        rows = {name: value[0] for name, value in beside.items() if _is_row(value, length)}
        features = {name: value for name, value in beside.items() if name not in rows}
        return MediaInputs(features, rows, self.positions(made))


def _without_last(made: Any, count: int) -> Any:
    """What a processor made, without its last tokens."""
    length = made["input_ids"].shape[1]
    rows = {name: value[:, : length - count] for name, value in made.items() if _is_row(value, length)}
    return {**made, **rows} if count else made


def video_facts(media: Media) -> list[dict[str, Any]]:
    """Of each of its videos, as transformers' `VideoMetadata` has them."""
    sizes = [(video.shape[:3], fps) for video, fps in zip(media.videos, media.video_fps, strict=True)]
    return [
        {"total_num_frames": frames, "frames_indices": list(range(frames)), "height": height, "width": width}
        | {"fps": fps, "duration": frames / fps if fps else None}
        for (frames, height, width), fps in sizes
    ]


def _as_they_are(media: Media) -> dict[str, Any]:
    """Options of a processor of videos: their frames were sampled already, at a rate that it would take for another."""
    facts = video_facts(media)
    return {"videos_kwargs": {"do_sample_frames": False, "video_metadata": facts}} if facts else {}


def _is_row(value: Any, length: int) -> bool:
    """Whether it has an integer for each token."""
    return tuple(value.shape) == (1, length) and not value.is_floating_point()
