"""What goes wrong inside an engine, by kind: what the trainer hears, and that a fresh engine goes on.

engine_faults.py KIND FOLDER OUT.json
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine_cases import NEW, REQUESTS
from engine_models import give, load_version, make_engine

from lightrft.errors import RunFailed
from lightrft.ranks.launch import join_world
from lightrft.rollouts.engines.base import Sampling
from lightrft.rollouts.engines.vllm import settings_fault


class Faults:
    def __init__(self, folder: Path, world: Any) -> None:
        self.folder, self.world = folder, world

    def vllm(self) -> dict[str, Any]:
        self.make_long()
        found: dict[str, Any] = {"no room": self.told(lambda: self.started("long", "--max_len 2000000"))}
        engine = self.started()
        runner = engine._llm.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker.model_runner

        def die(*_: Any, **__: Any) -> None:
            raise RuntimeError("an illegal memory access")

        runner.execute_model = die
        found["died"] = self.told(lambda: self.sample(engine))
        engine.close()
        found["fresh"] = self.sample(self.started())
        pairs = ["max_num_seqs=4"], ["max_num_seq=4"], ["load_format=auto"], ["enforce_eager=false"]
        found["settings"] = [settings_fault(pair) for pair in pairs]
        return found

    def make_long(self) -> None:
        """A model of long contexts, whose keys and values of one response are more than the GiB there is."""
        shutil.copytree(self.folder / "tied", self.folder / "long", dirs_exist_ok=True)
        file = self.folder / "long" / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "max_position_embeddings": 2_000_000}))

    def started(self, layout: str = "tied", more: str = "") -> Any:
        engine, own = make_engine("vllm", self.folder, layout, self.world, more)
        engine.wake("weights")
        give(engine, own, load_version(self.folder, "tied", "a"), 1)
        engine.wake("kv_cache")
        return engine

    def sample(self, engine: Any) -> list[dict]:
        return [asdict(row) for group in engine.generate(REQUESTS, Sampling(NEW), at_once=2) for row in group]

    def told(self, do: Any) -> str:
        try:
            do()
        except RunFailed as error:
            return f"{type(error).__name__}: {error}"
        return "nothing"


def main(kind: str, folder: str, out: str) -> None:
    found = getattr(Faults(Path(folder), join_world()), kind)()
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
