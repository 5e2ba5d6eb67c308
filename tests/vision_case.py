"""A tiny model that sees with all that is around it: requests, the local engine, the trainer's scores."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from vision_models import model_args

from lightrft.batch import collate
from lightrft.models.load import load_model
from lightrft.models.packing import Cost
from lightrft.models.processor import load_vision
from lightrft.models.token_model import TokenModel
from lightrft.models.tokenizer import load_tokenizer
from lightrft.prompts.encoder import Encoder
from lightrft.rollouts.engines.base import Sampling
from lightrft.rollouts.engines.local import LocalEngine
from lightrft.types import Generation, Media, Prompt, Request, Rollout

CPU = torch.device("cpu")


def picture(width: int, height: int) -> Image.Image:
    noise = np.random.RandomState(width * height).randint(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def prompt(position: int, text: str, *images: Image.Image) -> Prompt:
    parts = (*({"type": "image"} for _ in images), {"type": "text", "text": text})
    return Prompt(f"p{position}", ({"role": "user", "content": parts if images else text},), images=images)


class Case:
    """A family's tiny model, and requests: of one image, of two, of none."""

    family = ""

    def __init__(self, folder: Any, processor: str | None = None) -> None:
        args = model_args(folder)
        self.tokenizer = load_tokenizer(args)
        self.vision: Any = load_vision(args, processor, self.tokenizer, lambda p: Media(images=p.images), True)
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

    def batch(self, made: list[list[Generation]], temperature: float = 1.0) -> Any:
        rows = [(r, p, g) for r, p, each in zip(self.requests, self.prompts, made, strict=True) for g in each]
        return collate([self.rollout(*row) for row in rows], temperature, CPU)

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
            inputs = dict(self.vision._processed(self.vision.texts.text(prompt), Media(images=prompt.images)))
        with torch.no_grad():
            found = self.model.generate(**inputs, max_new_tokens=sampling.max_new_tokens, do_sample=False)
        self.model.model.rope_deltas = None  # which it would remember
        return found[0, ids.shape[1] :].tolist()
