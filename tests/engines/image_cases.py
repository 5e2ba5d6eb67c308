"""Cases of the engines' contract with images, for one kind; test_engine_images.py compares what they gave.

python image_cases.py KIND FOLDER OUT.json FAMILY ...
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from engine_cases import SAMPLED
from engine_models import BATCHES, streamed
from vision_case import Case, picture
from vision_models import FAMILIES, model_args

from lightrft.args import parse
from lightrft.errors import RunFailed
from lightrft.models.suitable import read_config
from lightrft.ranks.base import World
from lightrft.ranks.launch import join_world
from lightrft.rollouts.engines.base import Sampling
from lightrft.rollouts.engines.offers import OFFERS
from lightrft.rollouts.engines.vllm import MOVING
from lightrft.types import Media, Prompt, Request

NEW, MAX_LEN = 6, 400
VERSIONS = ("a", "tower", "b", "a again")


def become(model: Any, version: str) -> None:
    """Weights a, those of the folder; the same with another tower; others throughout."""
    kept = model.__dict__.setdefault("weights_a", {name: value.clone() for name, value in model.named_parameters()})
    torch.manual_seed(7)
    with torch.no_grad():
        for name, value in model.named_parameters():
            drawn = kept[name] + 0.1 * torch.randn_like(value)
            changes = version == "b" or (version == "tower" and "vis" in name)
            value.copy_(drawn if changes else kept[name])


def asked(requests: Sequence[Request], engine: Any, sampling: Sampling) -> list[list[dict]]:
    made = engine.generate(requests, sampling, at_once=3)
    return [[asdict(each) for each in group] for group in made]


def case_of(folder: Path) -> Case:
    """With the processor beside the model, where there is one, as --processor."""
    other = folder / "processor"
    return Case(folder, str(other) if other.is_dir() else None)


def save_other_processor(folder: Path) -> None:
    """Its images are larger than those of the model's own, and of other colours."""
    _, made = FAMILIES["qwen2_vl"](4)
    made.image_processor.size = {"shortest_edge": 56 * 56, "longest_edge": 16 * 28 * 28}
    made.image_processor.image_mean = [0.3, 0.3, 0.3]
    made.save_pretrained(folder / "processor")


def moving(folder: Path) -> Case:
    """The same model beside requests of a video, of one with an image, and of one whose rate nobody knows."""
    case = case_of(folder)
    frames = [
        np.random.RandomState(seed).randint(0, 255, (4, 60, 40 + 20 * seed, 3), dtype=np.uint8) for seed in (0, 1)
    ]
    case.prompts = [shown(0, (frames[0],)), shown(1, (frames[1],), picture(60, 80)), shown(2, (frames[0],))]
    rates = {"p0": 2.0, "p1": 0.5, "p2": None}
    read = lambda p: Media(images=p.images, videos=p.videos, video_fps=(rates[p.id],))  # noqa: E731
    vision = replace(case.vision, read=read, longest=MAX_LEN)
    case.requests = [vision.request(each, (7 + i, 70 + i)) for i, each in enumerate(case.prompts)]
    return case


def shown(number: int, videos: tuple[Any, ...], *images: Any) -> Prompt:
    parts = [{"type": kind} for kind, given in (("video", videos), ("image", images)) for _ in given]
    content = (*parts, {"type": "text", "text": "what moves?"})
    return Prompt(f"p{number}", ({"role": "user", "content": content},), videos=videos, images=images)


def make_engine(kind: str, case: Case, folder: Path, world: World, size: int = 1, **more: Any) -> Any:
    flags = f"--pretrain {folder} --prompt_data none.jsonl --reward_fn exact --save_path none {BATCHES}"
    flags += f" --max_len {MAX_LEN} --prompt_max_len 200 --engine_type {kind} --engine_tp_size {size}"
    args, ends = parse(flags.split()), {case.tokenizer.eos_token_id}
    return OFFERS[kind].module.make(
        args.model, args.engine, case.tokenizer, ends, torch.float32, world, case.vision, **more
    )


def run(kind: str, folder: Path, world: World) -> dict[str, Any]:
    case, videos = case_of(folder), {"videos": True} if folder.name in MOVING and kind == "vllm" else {}
    engine = make_engine(kind, case, folder, world, **videos)
    found: dict[str, Any] = {}
    for number, version in enumerate(VERSIONS):
        become(case.model, version)
        engine.update_weights(streamed(case.model), number)
        found[version] = asked(case.requests, engine, Sampling(NEW))
        found[f"prints {version}"] = [[list(names), value] for names, value in engine.fingerprints().items()]
    found["greedy"] = asked(case.requests, engine, Sampling(24, 0.0))
    found |= {
        name: asked(case.requests, engine, replace(sampling, max_new_tokens=NEW)) for name, sampling in SAMPLED.items()
    }
    found["other ids"] = failure(case, engine)
    if videos:
        found["moving"] = asked(moving(folder).requests, engine, Sampling(NEW))
    engine.close()
    return found


def failure(case: Case, engine: Any) -> str:
    """What it says where the trainer has one placeholder more."""
    request = case.requests[1]
    more = replace(request, prompt_ids=(*request.prompt_ids[:9], request.prompt_ids[8], *request.prompt_ids[9:]))
    try:
        engine.generate([replace(more, where="data.jsonl:7")], Sampling(NEW), at_once=1)
    except RunFailed as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def main(kind: str, folder: str, out: str, *families: str) -> None:
    world = join_world()
    found: dict[str, Any] = {family: run(kind, Path(folder) / family, world) for family in families}
    for family in ("qwen2_5_vl", "gemma3"):
        model = model_args(Path(folder) / family)
        found[f"fault {family}"] = OFFERS[kind].module.images_fault(model, read_config(model), "cpu")
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
