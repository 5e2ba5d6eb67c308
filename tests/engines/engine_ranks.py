"""Cases of the engines' contract on two ranks, under torchrun: one engine for each, and one for both.

engine_ranks.py KIND FOLDER OUT
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from engine_cases import NEW, REQUESTS
from engine_models import LAYOUTS, give, load_version, make_engine

from lightrft.ranks.base import World
from lightrft.ranks.launch import join_world, leave_world
from lightrft.rollouts.engines.base import Sampling


def cases(kind: str, folder: Path, layout: str, size: int, world: World) -> dict[str, Any]:
    """Ranks ask for different numbers of responses, in the end the first one for none."""
    engine, own = make_engine(kind, folder, layout, world, f"--engine_tp_size {size}")
    found: dict[str, Any] = {}
    for number, version in enumerate("aba"):
        engine.wake("weights")
        give(engine, own, load_version(folder, layout, version), number)
        engine.wake("kv_cache")
        mine = (REQUESTS[:1], REQUESTS[1:])[world.rank] if version == "a" else REQUESTS[world.rank : world.rank + 1]
        made = engine.generate(mine, Sampling(NEW, 0.6, 0.9), at_once=2)
        prints = [[list(names), value] for names, value in (engine.fingerprints() or {}).items()]
        found[f"{number} {version}"] = {"made": [[asdict(each) for each in group] for group in made], "prints": prints}
        engine.sleep(keep_weights=False)
    engine.wake("weights")
    give(engine, own, load_version(folder, layout, "a"), 4)
    engine.wake("kv_cache")
    found["none"] = len(engine.generate(REQUESTS if world.rank else (), Sampling(1), at_once=2))
    engine.close()
    return found


def main(kind: str, folder: str, out: str) -> None:
    world = join_world()
    found: dict[str, Any] = {}
    for size in (2, 1):
        for layout in LAYOUTS:
            found[f"{layout} {size}"] = cases(kind, Path(folder), layout, size, world)
    left = torch.ones(1)
    torch.distributed.all_reduce(left)
    found["ranks that go on together"] = int(left)
    Path(f"{out}{world.rank}.json").write_text(json.dumps(found))
    leave_world()
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
