"""A thousand prompts with images of any size, mode and number: each is read by its model, or is a bad row."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from vision_models import FAMILIES, model_args, save_tiny

from lightrft.models.load import load_model
from lightrft.models.media import Rows, joined
from lightrft.models.processor import load_vision
from lightrft.models.tokenizer import load_tokenizer
from lightrft.prompts.bad_rows import BadRow
from lightrft.prompts.media.decoding import MediaLimits, media_of
from lightrft.types import Prompt, Request

PROMPTS = 1000
MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I", "F", "YCbCr", "I;16")
TEXTS = (
    "what is it?",
    "",
    "<image>",
    "<|image_pad|>",
    "é\u0000🙂",
    "a" * 300,
    "<start_of_image>",
    "{{ x }}",
    "<|im_end|>",
)
SIDES = (1, 2, 3, 13, 28, 29, 64, 150, 400)


def picture(draw: random.Random) -> Any:
    mode, size = draw.choice(MODES), (draw.choice(SIDES), draw.choice(SIDES))
    grey = Image.fromarray(np.random.RandomState(draw.randrange(1000)).randint(0, 255, size[::-1], dtype=np.uint8))
    return grey.convert("I").convert(mode) if mode.startswith("I") else grey.convert("RGB").convert(mode)


def drawn(number: int) -> Prompt:
    """One to three turns; parts in any order; sometimes an image more, or less, than its places."""
    draw = random.Random(number)
    images = [picture(draw) for _ in range(draw.choice((1, 1, 1, 2, 3)))]
    places = len(images) + draw.choice((0, 0, 0, 0, 1, -1))
    parts = [{"type": "image"}] * places + [{"type": "text", "text": draw.choice(TEXTS)} for _ in range(2)]
    draw.shuffle(parts)
    cut = draw.randrange(len(parts) + 1)
    turns = [("user", parts[:cut]), ("assistant", [{"type": "text", "text": "so"}]), ("user", parts[cut:])]
    messages = tuple({"role": role, "content": tuple(content)} for role, content in turns if content)
    return Prompt(f"p{number}", messages, images=tuple(images), where=f"rows.jsonl:{number}")


def reads(model: Any, request: Request) -> None:
    """The model finds a feature for each placeholder."""
    length, media = len(request.prompt_ids), [request.mm_inputs]
    inputs = joined(media, torch.device("cpu")) | Rows(media, [0], [length], length).inputs(torch.device("cpu"))
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([request.prompt_ids]), **inputs, use_cache=False).logits
    assert not bool(logits.isnan().any())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_prompt_is_read_or_is_a_bad_row(family, tmp_path):
    args = model_args(save_tiny(family, tmp_path), prompt_max_len=380)
    read = partial(media_of, limits=MediaLimits(max_pixels=40_000, max_images=3))
    vision: Any = load_vision(args, None, load_tokenizer(args), read, True)
    model = load_model(args, torch.float32, torch.device("cpu"), trains=False)
    found = {"good": 0, "bad": 0}
    for number in range(list(FAMILIES).index(family), PROMPTS, len(FAMILIES)):
        prompt = drawn(number)
        places = sum(part["type"] == "image" for message in prompt.messages for part in message["content"])
        try:
            request = vision.request(prompt, (0,))
        except BadRow as fault:
            assert str(fault).startswith(prompt.where) and "\n" not in str(fault)
            found["bad"] += 1
            continue
        assert places == len(prompt.images), "an image has no place, or a place no image"
        reads(model, request)
        found["good"] += 1
    assert min(found.values()) > PROMPTS / len(FAMILIES) / 5, found
