"""What is kept of the media of a prompt: small PNG files, read once per prompt."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from indexed import indexed
from PIL import Image

from lightrft.prompts.bad_rows import BadRow
from lightrft.ranks.base import ONE_RANK
from lightrft.track.pictures import pictures_of, size_of
from lightrft.track.samples import first_samples
from lightrft.types import Media, MediaInputs, Prompt

TAKEN = MediaInputs({"pixel_values": torch.zeros(4, 3)})
SEEN = Prompt(id="p", messages=(), images=("a.png",))


def opened(pictures):
    return [Image.open(io.BytesIO(picture)) for picture in pictures]


def images(*sizes):
    return Media(images=tuple(Image.new("RGB", size, (10, 200, 30)) for size in sizes))


def video(frames, height, width):
    """Frame n is grey of brightness n."""
    return np.broadcast_to(np.arange(frames, dtype=np.uint8)[:, None, None, None], (frames, height, width, 3))


@pytest.mark.parametrize(
    ("size", "small"), [((100, 60), (100, 60)), ((2048, 1024), (512, 256)), ((600, 6000), (51, 512))]
)
def test_an_image_is_scaled_to_512_pixels_and_not_beyond(size, small):
    media = images(size)
    (picture,) = pictures_of(SEEN, lambda prompt: media)
    (image,) = opened([picture])
    assert image.size == size_of(picture) == small and image.getpixel((20, 20)) == (10, 200, 30)
    assert media.images[0].size == size, "the model's own image stays as it is"


def test_a_video_is_one_sheet_of_frames_from_the_first_to_the_last():
    media = Media(videos=(video(31, 40, 50), video(2, 600, 300), video(1, 8, 8)))
    sheet, two, one = opened(pictures_of(SEEN, lambda prompt: media))
    assert sheet.size == (4 * 50, 4 * 40) and two.size == (2 * 64, 128) and one.size == (8, 8)
    shown = [sheet.getpixel((column * 50 + 25, row * 40 + 20))[0] for row in range(4) for column in range(4)]
    assert shown == list(range(0, 31, 2))
    assert [two.getpixel((32, 64))[0], two.getpixel((96, 64))[0]] == [0, 1]


def test_a_text_has_none_and_neither_has_what_cannot_be_read_any_more():
    def broken(prompt):
        raise BadRow("is gone")

    assert pictures_of(replace(SEEN, images=()), pytest.fail) == () == pictures_of(SEEN, None)
    assert pictures_of(SEEN, broken) == ()
    assert len(pictures_of(SEEN, lambda prompt: images(*[(9, 9)] * 40))) == 16


def test_a_prompt_is_read_once_for_all_its_samples_which_hold_no_media(make_rollout, batch_of):
    prompts = [replace(SEEN, id="p", position=0), replace(SEEN, id="q", position=1)]
    rollouts = [
        replace(make_rollout([1], [3], total=1.0), prompt=prompts[n // 2], group=n // 2, mm_inputs=TAKEN)
        for n in range(4)
    ]
    rows = batch_of([([1, 3], [0, 1])] * 4).filled(group=torch.tensor([0, 0, 1, 1]))
    read = []
    samples = first_samples(
        rollouts, indexed(rows), 3, ONE_RANK, lambda prompt: read.append(prompt.id) or images((5, 5))
    )
    assert read == ["p", "q"] and [size_of(*sample.pictures) for sample in samples] == [(5, 5)] * 3
    assert samples[0].pictures[0] is samples[1].pictures[0]
    assert not any(sample.rollout.prompt.images or sample.rollout.mm_inputs for sample in samples)
