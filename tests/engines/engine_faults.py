"""What goes wrong inside an engine, by kind: what the trainer hears, and that a fresh engine goes on.

engine_faults.py KIND FOLDER OUT.json
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from engine_cases import NEW, REQUESTS
from engine_models import give, load_version, make_engine, read_args

from lightrft.errors import RunFailed
from lightrft.ranks.launch import join_world
from lightrft.rollouts.engines import sglang, traces
from lightrft.rollouts.engines.base import Sampling
from lightrft.rollouts.engines.offers import OFFERS
from lightrft.rollouts.engines.sglang_engine import _pickled


class Faults:
    def __init__(self, kind: str, folder: Path, world: Any) -> None:
        self.kind, self.folder, self.world = kind, folder, world

    def vllm(self) -> dict[str, Any]:
        self.make_long()
        found: dict[str, Any] = {"no room": self.told(lambda: self.started("long", "--max_len 2000000"))}
        engine = self.started()
        found["version"] = engine._llm.get_weight_version()
        engine._llm.update_weight_version("7")
        found["other version"] = self.told(lambda: self.sample(engine))
        runner = engine._llm.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker.model_runner

        def die(*_: Any, **__: Any) -> None:
            raise RuntimeError("an illegal memory access")

        runner.execute_model = die
        found["died"] = self.told(lambda: self.sample(engine))
        engine.close()
        found["fresh"] = self.sample(self.started())
        found["value"] = self.told(lambda: self.started(more="--engine_kwargs kv_cache_dtype=int3"))
        pairs = "max_num_seqs=4", "max_num_seq=4", "load_format=auto", "enforce_eager=false", "kv_cache_dtype=int3"
        found["settings"] = [self.fault(pair) for pair in pairs]
        return found

    def sglang(self) -> dict[str, Any]:
        """Its workers end the process of their parent when they fail: which is not this one."""
        engine, found = self.started(more="--engine_kwargs chunked_prefill_size=64"), {}  # the longest prompt in parts
        found["outside"] = self.told(lambda: engine._ask("load_weights", [_pickled([("x", torch.ones(1))])]))
        found["shape"] = self.told(lambda: engine.update_weights([("model.norm.weight", torch.ones(3))], 2))
        self.restarted(engine)
        workers = processes_of(engine._host.process.pid)
        os.kill(next(pid for pid, name in workers.items() if "scheduler" in name), signal.SIGKILL)
        found["died"] = self.told(lambda: self.sample(engine))
        self.restarted(engine)
        found["fresh"], last, mark = self.sample(engine), engine._host.process.pid, engine._host.mark
        found["not marked"] = [name for pid in processes_of(last) for name in shared_files(pid) if mark not in name]
        found["marked"] = len([path for path in Path("/dev/shm").iterdir() if mark in path.name])
        engine.close()
        found["orphans"] = list(processes_of(last).values())
        found["left"] = [str(path) for path in traces._files() if mark in path.name]
        found["workers"] = len(workers)
        found["value"] = self.told(lambda: self.started(more="--engine_kwargs kv_cache_dtype=int3"))
        answers, told = [], sglang._told
        sglang._told = lambda *asked: answers.append(told(*asked)) or answers[-1]
        found["settings"] = [self.fault(pair) for pair in ("max_total_tokens=64", "kv_cache_dtype=int3")]
        found["barred, but unknown to it"] = sorted(set(sglang.SET) - set(answers[0]["names"]))
        return found

    def restarted(self, engine: Any) -> None:
        engine.restart()
        engine.wake("weights")
        give(engine, None, load_version(self.folder, "tied", "a"), 1)
        engine.wake("kv_cache")

    def make_long(self) -> None:
        """A model of long contexts, whose keys and values of one response are more than the GiB there is."""
        shutil.copytree(self.folder / "tied", self.folder / "long", dirs_exist_ok=True)
        file = self.folder / "long" / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "max_position_embeddings": 2_000_000}))

    def fault(self, pair: str) -> str | None:
        args = read_args(self.kind, self.folder, "tied", f"--engine_kwargs {pair}")
        return OFFERS[self.kind].module.settings_fault(args.model, args.engine, "cpu")

    def started(self, layout: str = "tied", more: str = "") -> Any:
        engine, own = make_engine(self.kind, self.folder, layout, self.world, more)
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


def processes_of(session: int) -> dict[int, str]:
    """The processes of a session that still run, and what they call themselves."""
    found = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            name, _, rest = status.read_text().partition("(")[2].rpartition(")")
            command = (status.parent / "cmdline").read_text()
            if rest.split()[3] == str(session) and rest.split()[0] not in "ZX":
                found[int(status.parent.name)] = command or name
    return found


def shared_files(process: int) -> set[str]:
    """The files of /dev/shm that it has in its memory, without those that nobody finds by a name any more."""
    lines = Path(f"/proc/{process}/maps").read_text().splitlines()
    return {line[line.index("/dev/shm/") :] for line in lines if "/dev/shm/" in line and "(deleted)" not in line}


def main(kind: str, folder: str, out: str) -> None:
    found = getattr(Faults(kind, Path(folder), join_world()), kind)()
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
