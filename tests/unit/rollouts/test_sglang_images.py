"""What of SGLang's images needs no SGLang: what it is asked, what it has read, and names of tensors."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vision_case import Case
from vision_models import save_tiny

from lightrft.errors import RunFailed
from lightrft.rollouts.engines import sglang_scheduler
from lightrft.rollouts.engines.base import Sampling
from lightrft.rollouts.engines.images import difference, noise
from lightrft.rollouts.engines.sglang_engine import SGLangEngine
from lightrft.rollouts.engines.sglang_names import as_loaded, made_of


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> Case:
    return Case(save_tiny("qwen2_vl", tmp_path_factory.mktemp("qwen2_vl")))


class Answers:
    """In the place of its process: what it was asked, and the answers."""

    def __init__(self, **seen: Any) -> None:
        self.asked: dict[str, Any] = {}
        self.answers = {"seen": seen}

    def ask(self, what: str, *parts: Any) -> Any:
        self.asked[what] = parts
        return self.answers.get(what)


def engine(case: Case, host: Answers) -> SGLangEngine:
    about: Any = {"variables": {}, "max_len": 400, "sleeps": False, "vision": case.vision}
    made = SGLangEngine("none", {"tp_size": 1}, case.tokenizer, [1], torch.float32, **about)
    made._host, made.presence.pushed_once = host, True  # type: ignore[assignment]
    return made


def test_images_go_over_as_they_are_with_a_mark_for_each(case):
    host = Answers()
    host.answers["generate"] = [
        [{"ids": [5], "logprobs": [-1.0], "end": {"type": "stop"}, "prompt_ids": list(each.prompt_ids)}] * 2
        for each in case.requests
    ]
    made = engine(case, host).generate(case.requests, Sampling(4), at_once=3)
    assert [group[0].prompt_ids for group in made] == [each.prompt_ids for each in case.requests]
    (_, two, text), _ = host.asked["generate"]
    assert two[0][0] == case.requests[1].bare_ids and two[0][2] == case.requests[1].media.images
    assert text[0][0] == case.requests[2].prompt_ids and text[0][2] == ()
    assert two[0][1]["custom_params"]["unwritten"] == sorted(case.vision.placeholders) != []
    host.answers["generate"][1][1] = {**host.answers["generate"][1][1], "prompt_ids": [1]}
    with pytest.raises(RunFailed, match="SGLang read 1 tokens where the trainer has"):
        engine(case, host).generate(case.requests, Sampling(4), at_once=3)


def test_what_it_makes_of_an_image_is_compared_with_the_trainers(case):
    request = case.vision.of_image(noise())
    made = {"input_ids": request.prompt_ids, **request.mm_inputs.features}
    engine(case, Answers(**made))._check_processor(case.vision)
    for name, other in {
        "pixel_values is up to": {"pixel_values": made["pixel_values"] + 0.01},
        "image_grid_thw is ": {"image_grid_thw": made["image_grid_thw"] + 1},
        r"input_ids is \[": {"input_ids": made["input_ids"][:-1]},
    }.items():
        with pytest.raises(RunFailed, match=f"^SGLang's processor makes something else of an image .*: {name}"):
            engine(case, Answers(**made | other))._check_processor(case.vision)
    assert difference(made, {}) == "input_ids is missing"


def test_tensors_keep_the_trainers_names(case):
    held = {
        "model.layers.0.self_attn.qkv_proj.weight": [
            f"model.language_model.layers.0.self_attn.{n}_proj.weight" for n in "qkv"
        ],
        "visual.blocks.0.attn.qkv_proj.bias": ["model.visual.blocks.0.attn.qkv.bias"],
        "visual.blocks.0.mlp.gate_up_proj.weight": [
            f"model.visual.blocks.0.mlp.{n}_proj.weight" for n in ("gate", "up")
        ],
        "model.norm.weight": ["model.language_model.norm.weight"],
        "lm_head.weight": ["lm_head.weight"],
    }
    for name, ours in held.items():
        assert made_of(name, sees=True) == tuple(ours)
    assert as_loaded("model.language_model.norm.weight") == "model.norm.weight"
    assert as_loaded("model.visual.blocks.0.attn.qkv.bias") == "visual.blocks.0.attn.qkv.bias"
    assert made_of("model.norm.weight", sees=False) == ("model.norm.weight",)


def test_what_the_tower_made_is_forgotten_with_keys_and_values():
    kept = SimpleNamespace(embedding_cache={"an image": 1})
    forget = sglang_scheduler.with_images(lambda self, *, empty_cache: empty_cache, kept)
    assert forget(None, empty_cache=False) is False and kept.embedding_cache == {}
