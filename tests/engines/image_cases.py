"""Cases of the engines' contract with images, for one kind; test_engine_images.py compares what they gave.

python image_cases.py KIND FOLDER OUT.json FAMILY ...
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from engine_cases import SAMPLED
from engine_models import BATCHES, streamed
from vision_case import Case
from vision_models import model_args

from lightrft.args import parse
from lightrft.errors import RunFailed
from lightrft.models.suitable import read_config
from lightrft.ranks.base import World
from lightrft.ranks.launch import join_world
from lightrft.rollouts.engines.base import Sampling
from lightrft.rollouts.engines.offers import OFFERS

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


def asked(case: Case, engine: Any, sampling: Sampling) -> list[list[dict]]:
    made = engine.generate(case.requests, sampling, at_once=3)
    return [[asdict(each) for each in group] for group in made]


def run(kind: str, folder: Path, world: World) -> dict[str, Any]:
    case = Case(folder)
    flags = f"--pretrain {folder} --prompt_data none.jsonl --reward_fn exact --save_path none {BATCHES}"
    args = parse(f"{flags} --max_len {MAX_LEN} --prompt_max_len 200 --engine_type {kind}".split())
    ends = {case.tokenizer.eos_token_id}
    engine = OFFERS[kind].module.make(args.model, args.engine, case.tokenizer, ends, torch.float32, world, case.vision)
    found: dict[str, Any] = {}
    for number, version in enumerate(VERSIONS):
        become(case.model, version)
        engine.update_weights(streamed(case.model), number)
        found[version] = asked(case, engine, Sampling(NEW))
        found[f"prints {version}"] = [[list(names), value] for names, value in engine.fingerprints().items()]
    found["greedy"] = asked(case, engine, Sampling(24, 0.0))
    found |= {name: asked(case, engine, replace(sampling, max_new_tokens=NEW)) for name, sampling in SAMPLED.items()}
    found["other ids"] = failure(case, engine)
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
        found[f"fault {family}"] = OFFERS[kind].module.images_fault(model, read_config(model), None, "cpu")
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
