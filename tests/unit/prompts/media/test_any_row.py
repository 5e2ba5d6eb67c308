"""Whatever a row holds, it ends in media or in a bad row of one line, and in nothing else: a thousand made-up rows."""

import base64
import io
import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from lightrft.args.groups.data import DataArgs
from lightrft.prompts.bad_rows import BadRow
from lightrft.prompts.media.decoding import MediaLimits, media_of
from lightrft.prompts.media.marks import with_slices
from lightrft.prompts.rows import prompt_of

ROWS = 1000
MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK", "YCbCr"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I", "I;16", "F"),
    "WEBP": ("RGB", "RGBA"),
    "GIF": ("L", "P"),
    "BMP": ("1", "L", "RGB"),
}
OTHERS = (
    None,
    "",
    "none.png",
    "https://x.org/a.png",
    5,
    1.5,
    b"",
    b"hello",
    {},
    {"path": None},
    {"url": 3},
    [[]],
    "[",
    "{",
)


class Maker:
    """Rows from one stream of random numbers."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)

    def one_of(self, choices):
        return choices[self.random.integers(len(choices))]

    def image(self):
        kind = self.one_of(tuple(MODES))
        mode = self.one_of(MODES[kind])
        longest = self.one_of((3, 40, 300))
        width, height = (int(side) for side in self.random.integers(1, longest, 2))
        noise = self.random.integers(0, 255, (height, width), np.uint8)
        grey = Image.fromarray(noise)
        if mode in ("I;16", "I", "F"):
            kinds = {"I;16": np.uint16, "I": np.int32, "F": np.float32}
            image = Image.fromarray(noise.astype(kinds[mode]) * 200)
        else:
            image = Image.merge("LAB", [grey] * 3) if mode == "LAB" else grey.convert("RGB").convert(mode)
        frames = {"save_all": True, "append_images": [image] * 2} if self.random.random() < 0.05 else {}
        exif = Image.Exif()
        exif[0x0112] = int(self.random.integers(0, 10))
        buffer = io.BytesIO()
        image.save(buffer, kind, **(frames if kind in ("PNG", "TIFF", "GIF", "WEBP") else {}), exif=exif)
        return buffer.getvalue()

    def volume(self):
        shape = tuple(int(side) for side in self.random.integers(0, 5, self.one_of((2, 3, 3, 3, 4))))
        buffer = io.BytesIO()
        np.save(buffer, self.random.normal(size=shape).astype(self.one_of((np.uint8, np.int16, np.float32, bool))))
        return buffer.getvalue()

    def content(self):
        data = self.image() if self.random.random() < 0.85 else self.volume()
        damage = self.random.random()
        if damage < 0.15:
            return data[: self.random.integers(len(data))]
        if damage < 0.3:
            broken = np.frombuffer(data, np.uint8).copy()
            places = self.random.integers(len(data), size=self.one_of((1, 5, 100)))
            broken[places] = self.random.integers(0, 255, len(places))
            return broken.tobytes()
        return data

    def reference(self):
        if self.random.random() < 0.1:
            return self.one_of(OTHERS)
        data, form = self.content(), self.random.integers(6)
        text = base64.b64encode(data).decode()
        forms = (data, {"bytes": data, "path": None}, text, f"data:image/png;base64,{text}", {"image": data})
        if form < len(forms):
            return forms[form]
        try:
            return Image.open(io.BytesIO(data))
        except Exception:
            return data

    def row(self):
        images = [self.reference() for _ in range(self.one_of((0, 1, 1, 2, 3)))]
        videos = [
            self.one_of((self.content, self.reference, lambda: [self.reference()]))()
            for _ in range(self.one_of((0, 0, 1)))
        ]
        marks = "<image>" * len(images) + "<video>" * len(videos)
        parts = [{"type": "image"}] * len(images) + [{"type": "video"}] * len(videos)
        carried = [{"type": "image", "image": image} for image in images]
        content = self.one_of(
            (
                "What?",
                marks + "What?",
                f"What? {marks}",
                "<image>?",
                [*parts, {"type": "text", "text": "?"}],
                parts,
                carried,
                [],
            )
        )
        columns = {"images": images, "videos": videos, "label": "5"}
        if content is carried:
            del columns["images"]
        prompt = self.one_of((content, [{"role": "user", "content": content}]))
        turns = [{"role": "system", "content": "Look."}, {"role": "user", "content": content}]
        return {"prompt": self.one_of((prompt, turns)), **columns}


def told(row, limits):
    """What a row came to: "media", or the reason why it is bad."""
    try:
        prompt = prompt_of(row, "a:1", "a", DataArgs(prompt_data=()), origin=0)
        media = media_of(prompt, limits)
    except BadRow as fault:
        assert str(fault).strip() and "\n" not in str(fault)
        assert len(str(fault)) < 700, str(fault)
        return str(fault)
    for image in media.images:
        assert image.mode == "RGB" and 0 < image.width * image.height <= limits.max_pixels
    for frames in media.videos:
        assert frames.dtype == np.uint8 and frames.shape[3] == 3 and 0 < frames[0, ..., 0].size <= limits.max_pixels
    places = Counter(
        part["type"]
        for message in with_slices(prompt.messages, media.slices)
        for part in message["content"]
        if prompt.has_media
    )
    assert (places["image"], places["video"]) == (len(media.images), len(media.videos))
    json.dumps(prompt.columns)  # nothing of the media is left in them
    return "media"


@pytest.mark.filterwarnings("ignore")  # of Pillow's and numpy's readers, about what is broken
def test_a_row_is_media_or_bad_and_never_an_error():
    maker = Maker(13)
    ends = Counter(told(maker.row(), MediaLimits(max_pixels=5000, fps=2, max_images=8))[:5] for _ in range(ROWS))
    assert ends["media"] > ROWS / 5 and len(ends) > 3
