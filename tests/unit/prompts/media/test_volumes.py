"""A volume is its slices; where a voxel stands, and in which grey."""

import io

import nibabel
import numpy as np
import pytest

from lightrft.prompts.bad_rows import BadRow
from lightrft.prompts.media.decoding import MediaLimits, media_of
from lightrft.prompts.media.marks import with_slices
from lightrft.prompts.media.volumes import spread
from lightrft.types import Prompt

BLOCK = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
GREY = np.rint(np.arange(24) / 23 * 255).reshape(2, 3, 4)


def stored(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def media(images=(), videos=(), folder="", **limits):
    prompt = Prompt("1", (), images=tuple(images), videos=tuple(videos), where="a.jsonl:7", folder=str(folder))
    return media_of(prompt, MediaLimits(**limits))


def fault(**given):
    with pytest.raises(BadRow) as caught:
        media(**given)
    return str(caught.value)


def test_an_array_is_a_video_of_its_first_axis(tmp_path):
    np.save(tmp_path / "a.npy", BLOCK)
    made = media(videos=["a.npy", stored(BLOCK)], folder=tmp_path, fps=2)
    for frames in made.videos:
        assert frames.shape == (2, 3, 4, 3) and frames.dtype == np.uint8
        assert all(np.array_equal(frames[..., channel], GREY) for channel in range(3))
    assert made.video_fps == (2, 2)  # it has no times: the rate that was asked for


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_voxel_x_y_z_of_a_nifti_file_stands_in_frame_z_at_row_y_and_column_x(tmp_path, name):
    nibabel.Nifti1Image(BLOCK, np.diag([-1, 1, 1, 1])).to_filename(tmp_path / name)
    whole = {"bytes": (tmp_path / name).read_bytes(), "path": name}
    for frames in media(videos=[name, whole], folder=tmp_path).videos:
        assert frames.shape == (4, 3, 2, 3)
        assert all(frames[z, y, x, 0] == GREY[x, y, z] for x in range(2) for y in range(3) for z in range(4))


def test_among_images_a_volume_is_as_many_as_it_has_slices(tmp_path):
    made = media(images=[stored(BLOCK[:1]), stored(BLOCK)], max_images=3)
    assert [np.asarray(image)[0, 0, 0] for image in made.images] == [0, 0, GREY[1, 0, 0]]
    assert made.slices == (1, 2)
    text = {"type": "text", "text": "and"}
    turn = {"role": "user", "content": ({"type": "image"}, text, {"type": "image"})}
    [spoken] = with_slices((turn,), made.slices)
    assert spoken == {"role": "user", "content": ({"type": "image"}, text, {"type": "image"}, {"type": "image"})}
    assert "its images and slices of volumes are 2 or more, over --limit_mm_image_per_prompt 1" in fault(
        images=[stored(BLOCK)], max_images=1
    )


@pytest.mark.parametrize(
    ("values", "grey"),
    [
        (np.uint8([[[3, 200]]]), [3, 200]),
        (np.bool_([[[False, True]]]), [0, 255]),
        (np.int16([[[-1000, 0, 1000]]]), [0, 128, 255]),
        (np.uint16([[[5, 5]]]), [0, 0]),
        (np.float32([[[np.nan, 0.0, np.inf, 0.5, 1.0]]]), [0, 0, 0, 128, 255]),
        (np.float64([[[-1.7e308, 0, 1.7e308]]]), [0, 128, 255]),  # their difference is no float
        (np.float16([[[np.nan]]]), [0]),
    ],
)
def test_values_are_spread_from_the_least_to_the_greatest(values, grey):
    assert spread(values).ravel().tolist() == grey


def test_colour_and_bytes_stay_as_they_are():
    colour = np.random.default_rng(0).integers(0, 255, (2, 3, 4, 3), np.uint8)
    assert np.array_equal(media(videos=[stored(colour)]).videos[0], colour)
    assert np.array_equal(media(videos=[stored(colour[..., 0])]).videos[0][..., 1], colour[..., 0])
    small = media(videos=[stored(colour)], max_pixels=3).videos[0]
    assert small.shape == (2, 1, 2, 3)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (stored(np.zeros((2, 2))), "is an array of shape [2, 2] and type float64; one of 3 dimensions works"),
        (stored(np.zeros((2, 2, 2, 2))), "is an array of shape [2, 2, 2, 2] and type float64"),
        (stored(np.zeros((0, 2, 2))), "has shape [0, 2, 2]; from 1 to 536870912 voxels work"),
        (stored(np.zeros((2, 2, 2), complex)), "holds values of type complex128; numbers work"),
        (stored(np.array([[["a"]]])), "holds values of type <U1; numbers work"),
        (stored(np.array([[[None]]])), "cannot be decoded (ValueError: "),  # a pickle, which could run anything
        (stored(BLOCK)[:-9], "cannot be decoded (ValueError: "),
        (b"\x93NUMPY hello", "cannot be decoded ("),
        ({"bytes": b"hello", "path": "a.nii"}, "cannot be decoded ("),
        ({"bytes": b"\x1f\x8bhello", "path": "a.nii.gz"}, "cannot be decoded ("),
    ],
)
def test_what_is_no_volume_is_told(content, reason):
    for given in ({"videos": [content]}, {"images": [content]}):
        assert reason in fault(**given)
