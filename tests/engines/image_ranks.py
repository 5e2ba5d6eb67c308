"""Prompts with images on two ranks, under torchrun: one engine for both, and one for each.

image_ranks.py KIND FOLDER OUT
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from engine_models import streamed
from image_cases import NEW, asked, become, case_of, make_engine

from lightrft.ranks.base import World
from lightrft.ranks.launch import join_world, leave_world
from lightrft.rollouts.engines.base import Sampling


def cases(kind: str, folder: Path, size: int, world: World) -> dict[str, Any]:
    """The first rank asks for the prompt of one image, the other one for those of two and of none."""
    case = case_of(folder)
    engine, found = make_engine(kind, case, folder, world, size), dict[str, Any]()
    mine = (case.requests[:1], case.requests[1:])[world.rank]
    for number, version in enumerate(("a", "tower")):
        become(case.model, version)
        engine.update_weights(streamed(case.model), number)
        prints = [[list(names), value] for names, value in engine.fingerprints().items()]
        found[version] = {"made": asked(mine, engine, Sampling(NEW)), "prints": prints}
    engine.close()
    return found


def main(kind: str, folder: str, out: str) -> None:
    world = join_world()
    found = {str(size): cases(kind, Path(folder) / "qwen2_vl", size, world) for size in (2, 1)}
    Path(f"{out}{world.rank}.json").write_text(json.dumps(found))
    leave_world()
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
