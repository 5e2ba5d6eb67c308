"""What a test of a tracker looks at."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from PIL import Image

from lightrft.track.samples import Sample
from lightrft.types import Prompt


def png(*size):
    made = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(made, "PNG")
    return made.getvalue()


@pytest.fixture
def shown_samples(make_rollout):
    """Two samples of a prompt with two images, and one of a prompt without, which is invalid."""
    pictures = (png(8, 6), png(4, 4))
    parts = ({"type": "image"}, {"type": "image"}, {"type": "text", "text": "How *many*?"})
    asked = Prompt(id="seen", messages=({"role": "user", "content": parts},), position=0)
    made = [make_rollout([1], [4, 2], total=total, parts={"exact": total}) for total in (1.0, 0.0)]
    seen = [
        replace(rollout, prompt=asked, response=text) for rollout, text in zip(made, ("# 3", "4\n<b>"), strict=True)
    ]
    plain = replace(make_rollout([1], [3], error="no", position=1), response="x")
    numbers = {"advantages": [0.5, 0.5]}
    return [*(Sample(rollout, numbers, pictures) for rollout in seen), Sample(plain, {"advantages": [0.0]})]


@pytest.fixture
def warnings(capsys):
    """() -> the lines on stderr since the last call."""
    return lambda: capsys.readouterr().err.splitlines()
