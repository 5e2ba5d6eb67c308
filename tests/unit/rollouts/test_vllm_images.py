"""What of vLLM's images needs no vLLM: two processors are compared, and names of tensors are translated."""

from __future__ import annotations

import copy
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from torch import nn
from vision_case import Case
from vision_models import save_tiny

from lightrft.errors import RunFailed
from lightrft.rollouts.engines.images import check_ids
from lightrft.rollouts.engines.vllm_images import processor_fault, prompt_of
from lightrft.rollouts.engines.vllm_names import as_loaded, made_of
from lightrft.rollouts.engines.vllm_process import _read_with
from lightrft.types import Media, Request


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> Case:
    return Case(save_tiny("qwen2_vl", tmp_path_factory.mktemp("qwen2_vl")))


@pytest.mark.parametrize(
    "name, value, told",
    [
        ("resample", 0, "pixel_values is up to "),
        ("image_mean", [0.5, 0.5, 0.5], "pixel_values is up to "),
        ("max_pixels", 28 * 28 * 4, "input_ids is [1, "),
    ],
)
def test_another_processor_is_told_from_ours(case, name, value, told):
    other = copy.deepcopy(case.vision.processor)
    assert processor_fault(case.vision, other, videos=True) is None
    if name == "max_pixels":
        other.image_processor.size = {"shortest_edge": 28 * 28, "longest_edge": value}
    else:
        setattr(other.image_processor, name, value)
    assert (processor_fault(case.vision, other) or "").startswith(told)


def test_another_processor_of_videos_is_told_from_ours_where_there_are_any(case):
    other = copy.deepcopy(case.vision.processor)
    other.video_processor.image_mean = [0.1, 0.1, 0.1]
    assert processor_fault(case.vision, other) is None
    assert (processor_fault(case.vision, other, videos=True) or "").startswith("pixel_values_videos is up to ")


def test_a_prompt_goes_over_with_a_mark_for_each_image(case):
    seen, text = case.requests[1], case.requests[2]
    given = prompt_of(seen)
    assert given["multi_modal_data"] == {"image": list(seen.media.images)} and len(seen.media.images) == 2
    assert given["prompt_token_ids"] == list(seen.bare_ids) and len(seen.bare_ids) < len(seen.prompt_ids)
    assert prompt_of(text) == {"prompt_token_ids": list(text.prompt_ids)}


def test_the_frames_of_a_video_go_over_as_they_were_taken():
    """A rate that nobody knows is the one that transformers takes for it."""
    frames, media = np.zeros((4, 20, 30, 3), np.uint8), Media
    request = Request((1, 2), (0,), media=media(videos=(frames,) * 2, video_fps=(2.0, None)), bare_ids=(1,))
    given = prompt_of(request)
    assert list(given["multi_modal_data"]) == ["video"] and given["mm_processor_kwargs"] == {
        "videos_kwargs": {"do_sample_frames": False}
    }
    (sent, facts), (_, untold) = given["multi_modal_data"]["video"]
    assert sent is frames and (facts["fps"], facts["duration"], untold["fps"]) == (2.0, 2.0, 24.0)
    assert facts["frames_indices"] == [0, 1, 2, 3] and (facts["height"], facts["width"]) == (20, 30)


def test_vllm_reads_images_with_a_copy_of_the_trainers_processor(case, monkeypatch):
    context = SimpleNamespace(cached_processor_from_config=lambda config, **about: (config, about))
    monkeypatch.setitem(sys.modules, "vllm.multimodal.processing", SimpleNamespace(context=context))
    for _ in range(2):  # a second engine of the same process
        _read_with(case.vision.processor)
    found = context.cached_processor_from_config("c", type(case.vision.processor), tokenizer=None)
    assert type(found) is type(case.vision.processor) and found is not case.vision.processor
    assert context.cached_processor_from_config("c", str, a=1) == ("c", {"processor_cls": str, "a": 1})


def test_other_ids_than_ours_end_the_run_and_name_the_row():
    request = Request((5, 9, 9, 7), (1,), where="a.jsonl:3")
    check_ids("vLLM", request, [5, 9, 9, 7])
    for used, told in {
        (5, 9, 7): "3 tokens where the trainer has 4, other ones from token 2 on",
        (5, 9, 9, 8): "token 3",
    }.items():
        with pytest.raises(RunFailed, match=f"^a.jsonl:3: vLLM read .*{told}"):
            check_ids("vLLM", request, used)


class Theirs(nn.Module):
    """A tower one level deeper than the trainer's, which keeps gate and up apart; a text model that fuses them."""

    def __init__(self) -> None:
        super().__init__()
        self.vision_tower = nn.ModuleDict({"vision_model": nn.Linear(1, 1)})


def test_names_of_a_tower_are_found_one_level_deeper():
    assert as_loaded("model.vision_tower.layers.0.weight", ["vision_tower"]) == (
        "model.vision_tower.vision_model.layers.0.weight"
    )
    for kept in ("vision_tower.vision_model.layers.0.weight", "model.vision_model.layers.0.weight", "lm_head.weight"):
        assert as_loaded(kept, ["vision_tower"]) == kept
    names = ["vision_tower.mlp.gate_proj.w", "text.mlp.gate_proj.w", "text.mlp.up_proj.w", "unread.w"]
    held = {"vision_tower.vision_model.mlp.gate_proj.w", "text.mlp.gate_up_proj.w"}
    assert made_of(Theirs(), names, held) == {
        "vision_tower.vision_model.mlp.gate_proj.w": ("vision_tower.mlp.gate_proj.w",),
        "text.mlp.gate_up_proj.w": ("text.mlp.gate_proj.w", "text.mlp.up_proj.w"),
    }
