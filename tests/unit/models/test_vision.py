"""Models that see, of every family: sampled as Hugging Face samples them, scored as they were sampled."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from vision_models import FAMILIES, model_args, save_tiny

from lightrft.batch import collate
from lightrft.models.load import load_model
from lightrft.models.packing import Cost, can_share_prompts
from lightrft.models.processor import load_vision
from lightrft.models.token_model import TokenModel
from lightrft.models.tokenizer import load_tokenizer
from lightrft.models.vision import placeholders
from lightrft.prompts.bad_rows import BadRow
from lightrft.prompts.encoder import Encoder
from lightrft.rollouts.engines.base import Sampling
from lightrft.rollouts.engines.local import LocalEngine
from lightrft.types import Generation, Media, Prompt, Request, Rollout

CPU = torch.device("cpu")
SHARED = Cost(1e9, 0.0)  # sharing always pays


def picture(width: int, height: int) -> Image.Image:
    noise = np.random.RandomState(width * height).randint(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def prompt(position: int, text: str, *images: Image.Image) -> Prompt:
    parts = (*({"type": "image"} for _ in images), {"type": "text", "text": text})
    return Prompt(f"p{position}", ({"role": "user", "content": parts if images else text},), images=images)


class Case:
    """A family's tiny model, and requests: of one image, of two, of none."""

    def __init__(self, folder: Any) -> None:
        args = model_args(folder)
        self.tokenizer = load_tokenizer(args)
        self.vision: Any = load_vision(args, None, self.tokenizer, lambda p: Media(images=p.images), True)
        self.encoder = Encoder(self.tokenizer, self.vision)
        self.model: Any = load_model(args, torch.float32, CPU, trains=True)
        self.prompts = [
            prompt(0, "what is it?", picture(60, 80)),
            prompt(1, "both", picture(100, 40), picture(33, 90)),
            self.told(prompt(2, "no image here")),
        ]
        self.requests = [self.encoder.request(each, (3 * i, 3 * i + 1)) for i, each in enumerate(self.prompts)]
        self.engine = LocalEngine(lambda: nullcontext(self.model), self.tokenizer, [self.tokenizer.eos_token_id])

    def told(self, prompt: Prompt) -> Prompt:
        chat: Any = [dict(message) for message in prompt.messages]
        return replace(
            prompt, token_ids=tuple(self.tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"])
        )

    def batch(self, made: list[list[Generation]]) -> Any:
        rows = [(r, p, g) for r, p, each in zip(self.requests, self.prompts, made, strict=True) for g in each]
        return collate([self.rollout(*row) for row in rows], 1.0, CPU)

    def rollout(self, request: Request, prompt: Prompt, made: Generation) -> Rollout:
        mask, group = (1,) * len(made.response_ids), self.requests.index(request)
        return Rollout(
            prompt, group, made.prompt_ids, made.response_ids, "", mask, made.logprobs, "stop", 0, request.mm_inputs
        )

    def scored(self, batch: Any, sharing: Cost | None = None, blank: Request | None = None) -> Any:
        handle: Any = SimpleNamespace(model=self.model, module=self.model)
        return TokenModel(handle, sharing, blank=blank).logprobs(batch).logprobs

    def gradients(self, logprobs: Any) -> dict[str, torch.Tensor]:
        self.model.zero_grad()
        logprobs.sum().backward()
        return {name: p.grad.clone() for name, p in self.model.named_parameters() if p.grad is not None}

    def of_hugging_face(self, number: int, sampling: Sampling) -> list[int]:
        """Greedy tokens of its own `generate`."""
        prompt, request = self.prompts[number], self.requests[number]
        ids = torch.tensor([request.prompt_ids])
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if prompt.images:
            inputs = dict(self.vision._processed(self.vision._text(prompt), Media(images=prompt.images)))
        with torch.no_grad():
            found = self.model.generate(**inputs, max_new_tokens=sampling.max_new_tokens, do_sample=False)
        self.model.model.rope_deltas = None  # which it would remember
        return found[0, ids.shape[1] :].tolist()


@pytest.fixture(scope="module", params=FAMILIES)
def case(request, tmp_path_factory) -> Case:
    return Case(save_tiny(request.param, tmp_path_factory.mktemp(request.param)))


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


def test_shared_prompts_give_the_same_gradients(case):
    if not can_share_prompts(case.model):
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


def test_what_a_prompt_needs_is_told_where_it_lacks(case):
    mark = case.vision._mark("image")
    with pytest.raises(BadRow, match="p0: it has 1 images, and 2 times"):
        case.encoder.request(prompt(0, f"what is {mark}?", picture(40, 40)), (0,))
    assert case.vision.rate is not None, "every piece of an image becomes as many tokens"
    with pytest.raises(BadRow, match=r"p0: it has \d+ placeholders for \d+ features of its images"):
        replace(case.vision, rate=2 * case.vision.rate).request(case.prompts[0], (0,))
    short = replace(case.vision, longest=10)
    with pytest.raises(BadRow, match=r"\d\d tokens with its 1 images, over --prompt_max_len 10"):
        short.request(case.prompts[0], (0,))
