"""Pictures against pixels worked out by hand, and what is no picture."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from lightrft.prompts.bad_rows import BadRow
from lightrft.prompts.media import images
from lightrft.prompts.media.decoding import MediaLimits, media_of
from lightrft.types import Prompt


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(reference, folder="", **limits):
    """Of one image: its rows of pixels."""
    prompt = Prompt("1", (), images=(reference,), where="a.jsonl:7", folder=str(folder))
    [made] = media_of(prompt, MediaLimits(**limits)).images
    assert made.mode == "RGB"
    return np.asarray(made).tolist()


def fault(*references, folder="", **limits):
    with pytest.raises(BadRow) as caught:
        media_of(Prompt("1", (), images=references, where="a.jsonl:7", folder=str(folder)), MediaLimits(**limits))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def one(mode, value):
    return Image.new(mode, (1, 1), value)


def of_array(values, kind):
    return encoded(Image.fromarray(np.array([values])), kind)


def with_palette(**options):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    return encoded(image, "PNG", **options)


# a channel c with alpha a over white: (a * c + (255 - a) * 255) / 255; CMYK: (255 - c)(255 - k) / 255
@pytest.mark.parametrize(
    ("image", "pixels"),
    [
        (encoded(one("RGB", (1, 2, 3))), [[1, 2, 3]]),
        (encoded(one("L", 77)), [[77, 77, 77]]),
        (encoded(one("1", 1)), [[255, 255, 255]]),
        (encoded(one("RGBA", (200, 100, 0, 51))), [[244, 224, 204]]),  # 51 is a fifth: 0.2 * 200 + 0.8 * 255 = 244
        (encoded(one("RGBA", (9, 9, 9, 0))), [[255, 255, 255]]),
        (encoded(one("LA", (100, 102))), [[193, 193, 193]]),  # 102 is two fifths: 0.4 * 100 + 0.6 * 255 = 193
        (encoded(one("CMYK", (255, 0, 51, 0)), "TIFF"), [[0, 255, 204]]),
        (encoded(one("CMYK", (0, 0, 0, 204)), "TIFF"), [[51, 51, 51]]),
        (encoded(one("YCbCr", (128, 128, 128)), "TIFF"), [[128, 128, 128]]),
        (with_palette(), [[10, 20, 30], [200, 100, 50]]),
        (with_palette(transparency=1), [[10, 20, 30], [255, 255, 255]]),
        (of_array(np.uint16([0, 257 * 7, 65535, 4095]), "PNG"), [[0] * 3, [7] * 3, [255] * 3, [16] * 3]),
        (of_array(np.int32([-100, 0, 100]), "TIFF"), [[0] * 3, [128] * 3, [255] * 3]),
        (
            of_array(np.float32([0.5, 0.6, 1.5, np.nan, 1.5]), "TIFF"),
            [[0] * 3, [26] * 3, [255] * 3, [0] * 3, [255] * 3],
        ),
        (one("RGBA", (200, 100, 0, 51)), [[244, 224, 204]]),  # as PIL gives it
    ],
)
def test_every_mode_becomes_the_rgb_that_is_seen(image, pixels):
    assert picture(image) == [pixels]


def test_a_cmyk_photograph_is_not_a_negative():
    """Adobe writes CMYK in JPEG files inverted, and so does Pillow."""
    [[pixel]] = picture(encoded(one("CMYK", (0, 255, 255, 0)), "JPEG", quality=100))
    assert pixel[0] > 250 and max(pixel[1:]) < 5


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, [["a", "b", "c"], ["d", "e", "f"]]),
        (2, [["c", "b", "a"], ["f", "e", "d"]]),
        (3, [["f", "e", "d"], ["c", "b", "a"]]),
        (4, [["d", "e", "f"], ["a", "b", "c"]]),
        (5, [["a", "d"], ["b", "e"], ["c", "f"]]),
        (6, [["d", "a"], ["e", "b"], ["f", "c"]]),
        (7, [["f", "c"], ["e", "b"], ["d", "a"]]),
        (8, [["c", "f"], ["b", "e"], ["a", "d"]]),
    ],
)
def test_a_photograph_stands_upright(orientation, expected):
    grey = {letter: 40 * index for index, letter in enumerate("abcdef")}
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = encoded(Image.fromarray(np.array([[0, 40, 80], [120, 160, 200]], np.uint8)), "PNG", exif=exif)
    assert picture(file) == [[[grey[letter]] * 3 for letter in row] for row in expected]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_exif_data_turn_nothing():
    file = encoded(Image.new("RGB", (2, 1), (9, 8, 7)), "JPEG", quality=100, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert len(picture(file)[0]) == 2


def test_an_image_is_named_by_path_bytes_base64_and_address(tmp_path, monkeypatch):
    file = encoded(Image.new("RGB", (1, 1), (1, 2, 3)))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.png").write_bytes(file)
    (tmp_path / "b.png").write_bytes(encoded(Image.new("RGB", (1, 1), (4, 5, 6))))
    monkeypatch.chdir(tmp_path)
    text = base64.b64encode(file).decode()
    for named in ("a.png", str(tmp_path / "data/a.png"), file, text, f"data:image/png;base64,{text}", {"bytes": file}):
        assert picture(named, folder="data") == [[[1, 2, 3]]]
    assert picture("b.png", folder="data") == [[[4, 5, 6]]]
    (tmp_path / "a.png").write_bytes(encoded(Image.new("RGB", (1, 1), (7, 8, 9))))
    assert picture("a.png", folder="data") == [[[1, 2, 3]]]  # the data file's folder comes first


def test_what_is_no_image_is_told_with_its_place(tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "folder").mkdir()
    file = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)))
    (tmp_path / "half.png").write_bytes(file[: len(file) // 2])
    good = Image.new("RGB", (1, 1))
    told = fault(good, "none.png", folder=tmp_path)
    assert told.startswith(f"a.jsonl:7: image 2 of 2 (none.png) does not exist (looked in {tmp_path} and ")
    expected = {
        "empty.png": "image 1 of 1 (empty.png) is empty (0 bytes)",
        "text.png": "is no image, or of a format beside PNG, JPEG",
        "folder": "is a folder; among the row's videos it is one",
        "half.png": "cannot be decoded (OSError: image file is truncated",
        "data:image/png,abc": "is a data: address that is not in base64",
        "data:image/png;base64,!!!!": "image 1 of 1 is no valid base64",
        "A" * 5000: "image 1 of 1 is no image",
        "/dev/zero": "is no regular file",
    }
    for name, reason in expected.items():
        assert reason in fault(name, folder=tmp_path)
    assert "image 1 of 1 is no image" in fault(b"hello")


def test_an_animation_is_no_image():
    frames = [Image.new("RGB", (4, 4), (60 * index, 0, 0)) for index in range(3)]
    for kind in ("GIF", "PNG", "WEBP", "TIFF"):
        file = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        assert "is animated (3 frames): among the row's videos it works" in fault(file)
    assert picture(encoded(frames[0], "MPO", save_all=True, append_images=frames[1:]))  # a photograph and its preview


def test_an_image_that_would_fill_the_memory_is_refused_before_it_does(monkeypatch):
    large = encoded(Image.new("1", (20000, 10000)))
    assert len(large) < 30000
    assert "image 1 of 1 is too large (DecompressionBombError: Image size (200000000 pixels)" in fault(large)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # libraries turn the check off for all
    assert "image 1 of 1 has 20000 x 10000 pixels; from 1 to 178956970 work" in fault(large)


@pytest.mark.parametrize(
    ("size", "most", "expected"),
    [
        ((300, 200), 60000, (300, 200)),
        ((300, 200), 15000, (150, 100)),
        ((300, 200), 100, (12, 8)),
        ((1, 1000), 100, (1, 100)),
        ((1000, 1), 100, (100, 1)),
        ((1000, 3), 10, (10, 1)),
        ((7, 5), 1, (1, 1)),
    ],
)
def test_an_image_of_too_many_pixels_is_scaled_down_in_its_shape(size, most, expected):
    made = images.within(Image.new("RGB", size), most)
    assert made.size == expected


def test_an_image_is_counted_before_it_is_too_many():
    good = Image.new("RGB", (1, 1))
    assert len(media_of(Prompt("1", (), images=(good,) * 3), MediaLimits(max_images=3)).images) == 3
    assert "a.jsonl:7: its images and slices of volumes are 4 or more, over --limit_mm_image_per_prompt 3" in fault(
        *(good,) * 5, max_images=3
    )
