"""A video that was sampled here goes through a family's processor as it is: all of its frames, at their own rate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from transformers.utils import logging
from vision_models import model_args, save_tiny

from lightrft.models.processor import load_vision
from lightrft.models.tokenizer import load_tokenizer
from lightrft.types import Media, Prompt

FRAMES = np.random.default_rng(0).integers(0, 255, (8, 64, 64, 3), np.uint8)
ASKED = ({"role": "user", "content": ({"type": "video"}, {"type": "text", "text": "what moves?"})},)


def seen(folder: Any, fps: float | None) -> tuple[Any, str]:
    """The model's own inputs, and the text that it reads."""
    args = model_args(folder, prompt_max_len=2000)
    tokenizer = load_tokenizer(args)
    media = Media(videos=(FRAMES,), video_fps=(fps,))
    vision: Any = load_vision(args, None, tokenizer, lambda prompt: media, True)
    request = vision.request(Prompt("p", ASKED, videos=("a.mp4",)), (0,))
    return request.mm_inputs.features, tokenizer.decode(request.prompt_ids)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made: dict[str, Any] = {}

    def folder(family: str) -> Any:
        made[family] = made.get(family) or save_tiny(family, tmp_path_factory.mktemp(family))
        return made[family]

    return folder


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("fps", [0.5, 2.0, None])
def test_no_frame_is_left_out(folders, family, fps):
    features, _ = seen(folders(family), fps)
    assert features["video_grid_thw"][0, 0] == len(FRAMES) // 2  # two frames are one step of time


@pytest.mark.parametrize(("fps", "seconds"), [(0.5, 4.0), (2.0, 1.0), (4.0, 0.5)])
def test_a_model_that_counts_seconds_is_told_the_rate(folders, fps, seconds):
    features, _ = seen(folders("qwen2_5_vl"), fps)
    assert float(features["second_per_grid_ts"][0]) == seconds


@pytest.mark.parametrize(("fps", "times"), [(2.0, ["0.2", "1.2", "2.2", "3.2"]), (0.5, ["1.0", "5.0", "9.0", "13.0"])])
def test_a_model_that_reads_times_reads_those_of_the_frames(folders, fps, times):
    """Of each two frames the middle, in tenths: (0 + 0.5) / 2 s, (1 + 1.5) / 2 s, ..."""
    _, text = seen(folders("qwen3_vl"), fps)
    assert [word.split(" seconds>")[0] for word in text.split("<") if " seconds>" in word] == times


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3_vl"])
def test_the_library_has_nothing_to_ask_about_a_video(folders, family, caplog, monkeypatch):
    """Its processors warn, once in a process, where it is left open whether all frames together have a limit."""
    monkeypatch.setattr(logging.get_logger("transformers"), "propagate", True)
    logging.warning_once.cache_clear()  # pyright: ignore[reportAttributeAccessIssue]
    seen(folders(family), 2.0)
    assert not [record for record in caplog.records if "cap_pixels" in record.getMessage()]
