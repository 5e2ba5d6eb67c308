"""A turn of the loop on rows with and without images, on one process or several; the plain loop beside it.

As a script under torchrun, `images.py OUT FOLDER`, it runs CASES with the models of FAMILIES in that folder.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from launch import run_rank
from PIL import Image
from policies import Trained, as_rollout, make_samples, prepare
from torch import Tensor
from vision_models import model_args

from lightrft.models.load import load_model
from lightrft.models.processor import load_vision
from lightrft.models.tokenizer import load_tokenizer
from lightrft.ranks.base import World
from lightrft.ranks.launch import join_world, leave_world
from lightrft.types import Media, MediaInputs, Prompt, Rollout

# Groups 0 and 1 have images, group 2 has none; of two ranks one has texts alone, of three one has nothing to train.
DEALT = {
    1: [range(12)],
    2: [(0, 1, 2, 3, 4, 5, 6, 7), (8, 9, 10, 11)],
    3: [(0, 4, 5, 8), (1, 2, 3, 6, 7, 10, 11), (9,)],
}
STRATEGIES = ("--fsdp", "--fsdp --fsdp_cpu_offload", "--zero_stage 1", "--zero_stage 2", "--zero_stage 3")
FAMILIES = ("qwen2_5_vl", "llava", "idefics3")
LEARNS = "--actor_learning_rate 100 --max_norm 0 --init_kl_coef 0.05"


@dataclass(frozen=True)
class Case:
    strategy: str
    micro: int = 2
    more: str = ""

    @property
    def flags(self) -> str:
        return f"{LEARNS} {self.strategy} --micro_train_batch_size {self.micro} {self.more}"

    @property
    def frozen(self) -> str:
        """Of `more` what the plain loop has, too."""
        return self.more if "freeze" in self.more or "lora" in self.more else ""


PADDED = [Case(strategy, more="--no-share_prompts") for strategy in STRATEGIES]
SHARED = [Case("--fsdp", 4), Case("--zero_stage 2", 12), Case("--zero_stage 3", 1)]
PACKED = [Case("--zero_stage 2", 5, "--packing_samples"), Case("--fsdp", 12, "--packing_samples --no-share_prompts")]
FROZEN = [Case("--fsdp", 2, "--freeze_prefix visual"), Case("--zero_stage 2", 2, "--freeze_backbone")]
EVERY = [(FAMILIES[0], case) for case in (*PADDED, *SHARED, *FROZEN, *PACKED)]
SELECTIVE = "--gradient_checkpointing --recompute_granularity selective"
TWICE = [
    Case("--fsdp", 4, "--gradient_checkpointing"),
    Case("--fsdp --fsdp_reshard step", 2),
    Case("--zero_stage 3", 1, SELECTIVE),
]
CASES = [*EVERY, *((family, case) for family in FAMILIES[1:] for case in (PADDED[0], SHARED[2], PACKED[0]))]
FUSED = [Case("--zero_stage 3", 4, "--packing_samples --fused_linear_logprob --chunk_size 3")]
LANGUAGE, TOWER = "--freeze_prefix visual --no-tune_projector", "--freeze_backbone --no-tune_projector"
ADAPTED = [  # in both parts, and in either
    Case("--zero_stage 3", 4, "--lora_rank 2"),
    Case("--fsdp", 5, f"--lora_rank 2 {LANGUAGE} --packing_samples"),
    Case("--zero_stage 2", 4, f"--lora_rank 2 {TOWER}"),
]
CASES += [(FAMILIES[0], case) for case in (*TWICE, *FUSED, *ADAPTED)]


# On three ranks those of them: each strategy once, and shared prompts.
ON_THREE = (0, 2, 4, 6)


def picture(width: int, height: int) -> Image.Image:
    noise = np.random.RandomState(width).randint(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


IMAGES = ((picture(60, 80),), (picture(100, 40), picture(33, 90)), ())


class Rows:
    """The samples of `make_samples` behind prompts with images, for the model in `folder`."""

    def __init__(self, folder: Path) -> None:
        args = model_args(folder)
        vision = load_vision(args, None, load_tokenizer(args), lambda p: Media(images=p.images), True)
        assert vision is not None
        self.blank, self.media = vision.blank(), list[MediaInputs | None]()
        self.samples, beside, prompts = [], list[dict[str, Tensor]](), list[tuple[int, ...]]()
        for group, images in enumerate(IMAGES):
            parts = (*({"type": "image"} for _ in images), {"type": "text", "text": f"number {group}"})
            prompt = Prompt(f"p{group}", ({"role": "user", "content": parts},), images=images)
            request = vision.request(prompt, ())
            made = vision._processed(vision.texts.text(prompt), Media(images=images))
            self.media.append(request.mm_inputs if images else None)
            prompts.append(request.prompt_ids)
            beside.append(
                {name: made[name] for name in made if name not in ("input_ids", "attention_mask")} if images else {}
            )
        for sample in make_samples():
            group = sample.group
            self.samples.append(replace(sample, prompt=prompts[group], beside=beside[group]))

    def rollouts(self, rows: Any) -> list[Rollout]:
        return [as_rollout(self.samples[row], row % 4, self.media[self.samples[row].group]) for row in rows]


def load(folder: Path, more: str, seed: int = 0) -> Any:
    """The policy; with another seed the reference, whose weights are a little larger."""
    frozen: dict[str, Any] = {"freeze_prefix": ("visual",)} if "freeze_prefix" in more else {}
    frozen |= {"freeze_backbone": True} if "freeze_backbone" in more else {}
    frozen |= {"tune_projector": False} if "no-tune_projector" in more else {}
    frozen |= {"lora_rank": 2} if "lora_rank" in more else {}
    model = load_model(model_args(folder, **frozen), torch.float32, torch.device("cpu"), trains=True)
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.05, generator=draw)
            parameter *= 1 + 0.05 * seed
    return model


def prepared(world: World, case: Case, folder: Path, rows: Rows) -> Trained:
    make = partial(load, folder, case.more)
    return prepare(world, case.flags, make=make, reference_seed=1, blank=rows.blank)


def turn(world: World, case: Case, folder: Path, rows: Rows) -> dict[str, Tensor]:
    """Parameters after a step of SGD, as moved from where they began."""
    run = prepared(world, case, folder, rows)
    before = run.parameters()
    run.learn(run.batch(rows.rollouts(DEALT[world.size][world.rank])))
    return {name: value - before[name] for name, value in run.parameters().items()}


def main(out: str, folder: str) -> None:
    torch.set_num_threads(1)
    world = join_world()
    rows = {family: Rows(Path(folder) / family) for family in FAMILIES}
    numbers = ON_THREE if world.size == 3 else range(len(CASES))
    found = {
        number: turn(world, CASES[number][1], Path(folder) / CASES[number][0], rows[CASES[number][0]])
        for number in numbers
    }
    if world.rank == 0:
        torch.save(found, out)
    leave_world()


if __name__ == "__main__":
    run_rank(main)
