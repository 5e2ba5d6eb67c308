"""Models that see, of every family: sampled as Hugging Face samples them, scored as they were sampled."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from vision_case import Case, picture, prompt
from vision_models import FAMILIES, save_tiny

from lightrft.models.packing import Cost
from lightrft.models.segment_check import takes_segments, with_segments_checked
from lightrft.models.token_model import TokenModel
from lightrft.models.vision import placeholders
from lightrft.prompts.bad_rows import BadRow
from lightrft.prompts.placeholders import runs_of
from lightrft.rollouts.engines.base import Sampling
from lightrft.strategy.base import Handle

SHARED = Cost(1e9, 0.0)  # sharing always pays


@pytest.fixture(scope="module", params=FAMILIES)
def case(request, tmp_path_factory) -> Case:
    made = Case(save_tiny(request.param, tmp_path_factory.mktemp(request.param)))
    made.family = request.param
    return made


def test_greedy_tokens_are_hugging_faces(case):
    greedy = Sampling(6, temperature=0.0)
    made = case.engine.generate([replace(r, seeds=(0,)) for r in case.requests], greedy, at_once=3)
    for number, (found,) in enumerate(made):
        expected = case.of_hugging_face(number, greedy)
        assert list(found.response_ids) == expected[: len(found.response_ids)]


def test_sampled_logprobs_are_the_trainers(case):
    batch = case.batch(case.engine.generate(case.requests, Sampling(6), at_once=2))
    with torch.no_grad():
        assert (case.scored(batch) - batch.rollout_logprobs).abs().max() < 1e-5


def test_what_a_model_does_with_an_image_is_tried_when_it_is_loaded(case):
    """One whose tokens of an image see each other, or that forgets there what rows hold, would be cut into blocks that
    do not; of texts it makes what it should."""
    if not takes_segments(case.model):
        return

    def forgetful(segments=None, **inputs):
        sees_images = any(name.startswith("pixel") for name in inputs)
        return case.model(**inputs) if sees_images else case.model(segments=segments, **inputs)

    blank, whole = case.vision.blank(), TokenModel(Handle(case.model, case.model), SHARED)
    assert with_segments_checked(whole, "it", None, blank) is whole
    broken = TokenModel(Handle(forgetful, case.model), SHARED)
    assert with_segments_checked(broken, "it", None) is broken
    assert not with_segments_checked(broken, "it", None, blank).shares_prompts


def test_shared_prompts_give_the_same_gradients(case):
    if not takes_segments(case.model):
        assert case.model.config.model_type == "gemma3"  # its images are read in both directions, its layers in windows
        return
    batch = case.batch(case.engine.generate(case.requests, Sampling(6), at_once=3))
    padded, shared = (case.gradients(case.scored(batch, sharing)) for sharing in (None, SHARED))
    assert padded.keys() == shared.keys()
    for name, gradient in padded.items():
        assert torch.allclose(shared[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max() + 1)), name


def test_a_row_with_an_image_that_weighs_nothing_reaches_every_parameter(case):
    """A process without images runs what the others run, and changes nothing."""
    made = case.engine.generate(case.requests, Sampling(6), at_once=3)
    texts = case.batch(made).select([4, 5])
    alone, along = case.scored(texts), case.scored(texts, blank=case.vision.blank())
    assert not texts.mm_inputs and torch.allclose(alone, along, atol=1e-5)
    without, reached = case.gradients(alone), case.gradients(case.scored(texts, blank=case.vision.blank()))
    tower = reached.keys() - without.keys()
    assert tower and all(bool((reached[name] == 0).all()) for name in tower)
    assert all(torch.allclose(reached[name], value, rtol=1e-4, atol=1e-5) for name, value in without.items())


def test_placeholders_cannot_be_sampled(case):
    ids = placeholders(case.model.config)
    assert ids
    with torch.no_grad():
        logits = case.model(input_ids=torch.tensor([case.requests[2].prompt_ids])).logits
    assert bool((logits[..., ids] == float("-inf")).all()) and bool(logits[..., : ids[0]].isfinite().all())


class Shifting:
    """A processor that writes a placeholder less into the last run, and one more into the first."""

    def __init__(self, processor: Any, places: frozenset[int]) -> None:
        self._processor, self._places = processor, places

    def __getattr__(self, name: str) -> Any:
        return getattr(self._processor, name)

    def __call__(self, **given: Any) -> Any:
        made = self._processor(**given)
        (ids,) = made["input_ids"].tolist()
        last = max(place for place, id in enumerate(ids) if id in self._places)
        first = min(place for place, id in enumerate(ids) if id in self._places)
        made["input_ids"] = torch.tensor([[*ids[:first], ids[first], *ids[first:last], *ids[last + 1 :]]])
        return made


def test_two_images_whose_faults_cancel_are_found(case):
    """Together they have as many placeholders as features."""
    apart = ({"type": "image"}, {"type": "text", "text": " and "}, {"type": "image"})
    both = replace(case.prompts[1], messages=({"role": "user", "content": apart},), where="rows.jsonl:7")
    right = case.vision.request(both, ())
    shifted = replace(case.vision, processor=Shifting(case.vision.processor, case.vision.placeholders))
    with pytest.raises(BadRow) as fault:
        shifted.request(both, ())
    of, name = ("tile", "1 of 6 of its 2 images") if case.family == "idefics3" else ("image", "1 of 2")
    first = runs_of(right.prompt_ids, case.vision.placeholders)[0]
    assert str(fault.value) == f"rows.jsonl:7: {of} {name} has {first + 1} placeholders for {first} features"


def test_what_a_prompt_needs_is_told_where_it_lacks(case):
    mark = case.vision.texts.mark("image")
    with pytest.raises(BadRow, match="p0: one of its texts holds .*, which stands for an image"):
        case.encoder.request(prompt(0, f"what is {mark}?", picture(40, 40)), (0,))
    assert case.vision.rate is not None, "every piece of an image becomes as many tokens"
    with pytest.raises(BadRow, match=r"p0: (image|tile) 1 of .* has \d+ placeholders for \d+ features"):
        replace(case.vision, rate=2 * case.vision.rate).request(case.prompts[0], (0,))
    short = replace(case.vision, longest=10)
    with pytest.raises(BadRow, match=r"\d\d tokens with its image, over --prompt_max_len 10"):
        short.request(case.prompts[0], (0,))
