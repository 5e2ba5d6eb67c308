"""Frames against times worked out by hand; a video file is the same through av and through torchcodec."""

import io
import sys

import av
import numpy as np
import pytest
from PIL import Image

from lightrft.errors import RunFailed
from lightrft.prompts.bad_rows import BadRow
from lightrft.prompts.media import video_files
from lightrft.prompts.media.decoding import MediaLimits, media_of
from lightrft.prompts.media.video_files import Timed, sampled
from lightrft.types import Prompt


def grey(level, size=(32, 16)):
    return Image.new("RGB", size, (level,) * 3)


def video(levels, rate=10, rotation=0):
    """An MP4 file of frames of one grey each."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        for level in levels:
            container.mux(stream.encode(av.VideoFrame.from_image(grey(level))))
        container.mux(stream.encode())
    return buffer.getvalue()


def decoded(*references, folder="", **limits):
    prompt = Prompt("1", (), videos=references, where="a.jsonl:7", folder=str(folder))
    return media_of(prompt, MediaLimits(**limits))


def levels(frames):
    """The grey of each frame, in tens: a codec may miss by a little."""
    return [round(int(frame[0, 0, 0]) / 10) for frame in frames]


def fault(*references, folder="", **limits):
    with pytest.raises(BadRow) as caught:
        decoded(*references, folder=folder, **limits)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("times", "end", "fps", "shown"),
    [
        ([0, 0.1, 0.2, 0.3, 0.4], 0.5, None, [0, 1, 2, 3, 4]),
        ([0, 0.1, 0.2, 0.3, 0.4], 0.5, 5, [0, 2, 4]),
        ([0, 0.1, 0.2, 0.3, 0.4], 0.5, 10, [0, 1, 2, 3, 4]),
        ([0, 0.1, 0.2, 0.3, 0.4], 0.5, 100, [0, 1, 2, 3, 4]),  # each once
        ([0, 0.1, 0.2, 0.3, 0.4], 0.5, 4, [0, 2]),  # at 0.25 the one of 0.2 is shown; 0.5 is the end
        ([0, 0.1, 0.2, 0.3, 0.4], 0.6, 4, [0, 2, 4]),
        ([0, 0.1, 0.2, 0.3, 0.4], 0, 5, [0, 2, 4]),  # a file that does not tell its length
        ([7, 7.5, 9], 3, 1, [0, 1, 2]),  # at 0, 1 and 2 after the first
        ([0, 5], 7, 0.5, [0, 1]),
        ([3], 0, 1, [0]),
        ([], 1, 1, []),
    ],
)
def test_the_frames_shown_at_each_time(times, end, fps, shown):
    assert list(sampled([Timed(time, index) for index, time in enumerate(times)], end, fps)) == shown


@pytest.mark.parametrize(
    ("fps", "seen", "rate"),
    [
        (None, list(range(0, 25)), 10),
        (2, [0, 5, 10, 15, 20], 2),
        (30, list(range(0, 25)), 10),
    ],
)
def test_a_video_file_by_path_and_as_bytes(tmp_path, fps, seen, rate):
    file = video([10 * index for index in range(25)])
    (tmp_path / "a.mp4").write_bytes(file)
    media = decoded("a.mp4", {"bytes": file, "path": "a.mp4"}, file, folder=tmp_path, fps=fps)
    assert [levels(frames) for frames in media.videos] == [seen] * 3
    assert media.videos[0].dtype == np.uint8 and media.videos[0].shape == (len(seen), 16, 32, 3)
    assert media.video_fps == (rate,) * 3


def test_frames_are_scaled_down_too():
    [frames] = decoded(video([0, 50]), max_pixels=128).videos
    assert frames.shape == (2, 8, 16, 3)


def test_frames_that_phones_took_sideways_stand_upright(monkeypatch):
    """av writes no such mark, so the frame is given one: the picture has to turn by -90 degrees, clockwise."""
    picture = np.zeros((2, 3, 3), np.uint8)
    picture[0, 0] = 9

    class Marked:
        rotation = -90

        def to_ndarray(self, format):
            return picture

    turned = video_files._upright(Marked())
    assert turned.shape == (3, 2, 3) and turned[0, 1, 0] == 9


def test_a_folder_of_frames_is_read_in_the_order_of_its_numbers(tmp_path):
    (tmp_path / "clip").mkdir()
    for number in (10, 9, 1):
        grey(10 * number).save(tmp_path / "clip" / f"frame{number}.png")
    (tmp_path / "clip" / "notes.txt").write_text("x")
    (tmp_path / "clip" / ".frame0.png").write_text("x")
    media = decoded("clip", folder=tmp_path, fps=1)
    assert ([levels(frames) for frames in media.videos], media.video_fps) == ([[1, 9, 10]], (1,))
    grey(0, (8, 8)).save(tmp_path / "clip" / "frame11.png")
    assert "video 1 of 1 (clip) has frames of several sizes: number 4 has 8 x 8 pixels, the first 32 x 16" in fault(
        "clip", folder=tmp_path
    )
    (tmp_path / "clip" / "frame10.png").write_bytes(b"x")
    assert "has a frame 3 of 4 (frame10.png) that is no image" in fault("clip", folder=tmp_path)
    (tmp_path / "empty").mkdir()
    assert "video 1 of 1 (empty) is a folder without images (.png" in fault("empty", folder=tmp_path)


def test_a_list_of_images_is_a_video(tmp_path):
    grey(20).save(tmp_path / "a.png")
    media = decoded((grey(10), "a.png", (tmp_path / "a.png").read_bytes()), folder=tmp_path)
    assert levels(media.videos[0]) == [1, 2, 2]
    assert "video 1 of 1 has a frame 2 of 2 (none.png) that does not exist" in fault((grey(1), "none.png"))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_an_animated_image_is_a_video(kind):
    frames, buffer = [grey(40 * index) for index in range(5)], io.BytesIO()
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], duration=100, lossless=True)
    for fps, seen, rate in ((None, [0, 4, 8, 12, 16], 10), (5, [0, 8, 16], 5)):
        media = decoded(buffer.getvalue(), fps=fps)
        assert (levels(media.videos[0]), media.video_fps) == (seen, (pytest.approx(rate),))


def test_what_is_no_video_is_told_with_its_place(tmp_path):
    grey(0).save(tmp_path / "a.png")
    whole = video([10 * index for index in range(10)])
    told = fault(whole, "a.png", folder=tmp_path)
    assert told.startswith("a.jsonl:7: video 2 of 2 (a.png) is a single image and no video; among the row's images")
    assert "video 1 of 1 (none.mp4) does not exist" in fault("none.mp4")
    for broken in (whole[:600], b"hello", whole[:100] + b"x" * 100):
        assert fault(broken).startswith("a.jsonl:7: video 1 of 1 ")
    assert "video 1 of 1 is empty (0 bytes)" in fault({"bytes": b"", "path": ""})


def test_sound_alone_is_no_video():
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.rate = 8000
        container.mux(stream.encode(sound))
    assert "video 1 of 1 holds no video, only audio" in fault(buffer.getvalue())


def test_a_video_of_too_many_frames_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(video_files, "MOST_FRAMES", 8)
    file = video([0] * 40)
    told = fault(file)
    assert "has 4 seconds, of which 40 frames are taken, and 8 is the most: --fps 1.98 works" in told
    assert len(decoded(file, fps=1.98).videos[0]) == 8


def test_without_a_decoder_the_run_ends_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    with pytest.raises(RunFailed, match=r"^video a.mp4 needs a package: pip install av \(or torchcodec, which"):
        decoded({"bytes": b"hello", "path": "a.mp4"})
