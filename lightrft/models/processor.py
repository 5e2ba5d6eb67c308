"""What turns images and videos into the inputs of a model that sees: its processor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightrft.errors import Refused
from lightrft.models.load import described_model
from lightrft.models.media import counted_from, own_positions
from lightrft.models.source import REMEDIES, check_place, code_options, place, refusal
from lightrft.models.suitable import end_token_ids, read_config
from lightrft.models.vision import placeholders, sees
from lightrft.prompts.bad_rows import BadRow
from lightrft.prompts.endings import closing_ids
from lightrft.prompts.placeholders import pieces_of
from lightrft.prompts.vision import Vision
from lightrft.prompts.vision_texts import texts_of
from lightrft.types import Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lightrft.args.groups.model import ModelArgs
    from lightrft.types import Media

Read = Callable[[Prompt], "Media"]
SMALL = 16  # pixels of a side
IMAGE = 4  # dimensions of an image among others: [pieces, channels, height, width]
INSTALL = "pip install torchvision, of the release that belongs to the torch that is there"


def load_vision(
    args: ModelArgs, path: str | None, tokenizer: PreTrainedTokenizerBase, read: Read, apply_chat_template: bool | None
) -> Vision | None:
    """How prompts with images become inputs of `--pretrain`; None for a model that does not see.

    path: `--processor`. read: a prompt's media, decoded. apply_chat_template: see `encode_prompts`. A template that
    the processor alone has becomes the tokenizer's: texts go through it too.
    """
    processor = load_processor(args, path, tokenizer)
    if processor is None:
        return None
    count = counted_from(described_model(args))

    def positions(inputs: Mapping[str, Any]) -> Any:
        return None if count is None else own_positions(count, inputs)

    ids = frozenset(placeholders(read_config(args)))
    texts = texts_of(processor, closing_ids(tokenizer, end_token_ids(args, tokenizer)), apply_chat_template)
    vision = Vision(processor, read, positions, ids, texts, args.prompt_max_len)
    try:
        return vision.measured()
    except BadRow as fault:
        flag = f"--pretrain {args.pretrain}" if path is None else f"--processor {path}"
        why = f"it makes no prompt of a small image with the chat template of --pretrain ({fault})"
        raise Refused(f"{flag}: {why}; give the processor of this model") from fault
    except Exception as error:
        raise refusal(args, "processor", error) from error


def load_processor(args: ModelArgs, path: str | None, tokenizer: PreTrainedTokenizerBase) -> Any:
    """Of `--processor`, or of `--pretrain`, around the tokenizer that texts go through; None for a model that does not
    see. Raises `Refused`."""
    from transformers import AutoProcessor

    if not sees(read_config(args)):
        if path is not None:
            raise Refused(f"--processor {path}: --pretrain {args.pretrain} does not see; leave it out")
        return None
    own = args if path is None else replace(args, pretrain=path)
    try:
        processor = AutoProcessor.from_pretrained(place(own), **code_options(own))
    except Exception as error:  # of a library that is missing, or of files that are
        raise _refusal(own, path, error) from error
    if not hasattr(processor, "image_processor"):
        flag = f"--pretrain {args.pretrain}" if path is None else f"--processor {path}"
        raise Refused(f"{flag}: it has no processor of images (preprocessor_config.json or processor_config.json)")
    if not tokenizer.chat_template:  # older models have it beside their processor alone
        tokenizer.chat_template = getattr(processor, "chat_template", None)
    processor.tokenizer = tokenizer
    videos = getattr(processor, "video_processor", None)
    if getattr(videos, "cap_pixels_per_frame", True) is None:  # 5.16 asks all users whether to: --max_pixels does it
        videos.cap_pixels_per_frame = False  # pyright: ignore[reportOptionalMemberAccess]
    return processor


def told_of_pixels(vision: Vision, max_pixels: int) -> list[str]:
    """A line where the processor scales up what `--max_pixels` has scaled down."""
    least = least_pixels(vision)
    if least is None or max_pixels >= least:
        return []
    made = f"less than the {least} pixels that the model's processor makes of any image"
    return [f"--max_pixels {max_pixels} is {made}: detail is lost, and no token saved; use {least} or more"]


def least_pixels(vision: Vision) -> int | None:
    """How many pixels the model reads of the smallest image; None where what the processor makes does not tell."""
    inputs = vision.blank(SMALL, SMALL).mm_inputs
    assert inputs is not None, "it has an image"
    pieces, shape = pieces_of(inputs.features), next(iter(inputs.features.values())).shape
    side = getattr(vision.processor.image_processor, "patch_size", None)
    if len(shape) < IMAGE:
        return pieces * side**2 if isinstance(side, int) else None
    return pieces * shape[-2] * shape[-1]


def _refusal(args: ModelArgs, path: str | None, error: Exception) -> Refused:
    text = str(error)
    if "orchvision" in text and "torchvision" not in REMEDIES:
        return Refused(f"--pretrain {args.pretrain}: its processor needs torchvision: {INSTALL}")
    try:
        if not Path(place(args)).is_dir():
            check_place(args)
        found = refusal(args, "processor", error)
    except Refused as no_folder:
        found = no_folder
    return found if path is None else Refused(str(found).replace("--pretrain", "--processor", 1))
