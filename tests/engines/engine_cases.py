"""All cases of the engines' contract in one process, for one kind; test_engines.py compares what they gave.

python engine_cases.py KIND FOLDER OUT.json
"""

from __future__ import annotations

import json
import random
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from engine_models import LAYOUTS, MAX_LEN, give, load_version, make_engine

from lightrft.errors import RunFailed
from lightrft.ranks.launch import join_world
from lightrft.rollouts.engines import vllm_transfer
from lightrft.rollouts.engines.base import Sampling
from lightrft.types import Request

REQUESTS = (
    Request((4, 5, 6, 7), (1, 2, 3)),
    Request((8, 9, 10), (4, 5 << 40, (1 << 64) - 1)),
    Request(tuple(4 + i * i % 12 for i in range(150)), (7, 8)),  # longer than a block of a cache of prefixes
)
NEW = 8
SAMPLED = {
    f"temperature {temperature} top_p {top_p}": Sampling(NEW, temperature, top_p)
    for temperature in (1.0, 0.6)
    for top_p in (1.0, 0.9)
}
OTHERS = {
    "greedy": Sampling(NEW, 0.0),
    "top_k 3 min_p 0.2": Sampling(NEW, top_k=3, min_p=0.2),
    "ignore_eos": Sampling(24, ignore_eos=True),
    "long": Sampling(24),
    "one token": Sampling(1),
    "stop": Sampling(24, stop=("5", "77")),
}

MASKED = {
    "masked top_p 0.9": Sampling(NEW, 0.6, 0.9, returns_mask=True),
    "masked hot top_p 0.7": Sampling(NEW, 0.8, 0.7, first_temperature=5.0, returns_mask=True),
}


class Cases:
    def __init__(self, kind: str, folder: Path, layout: str, world: Any) -> None:
        self.a, self.b = (load_version(folder, layout, version) for version in "ab")
        self.engine, self.own = make_engine(kind, folder, layout, world)
        self.asked = {**SAMPLED, **OTHERS, **({} if kind == "vllm" else MASKED)}

    def run(self) -> dict[str, Any]:
        self.engine.wake("weights")
        give(self.engine, self.own, self.a, 1)
        self.engine.wake("kv_cache")
        found: dict[str, Any] = {name: self.ask(sampling) for name, sampling in self.asked.items()}
        found["again"] = self.ask(Sampling(NEW))
        found["one by one"] = [group for request in reversed(REQUESTS) for group in self.ask(Sampling(NEW), request)]
        found["too long"] = self.failure(lambda: self.ask(Sampling(24), Request((4,) * 190, (1,))))
        found["fills max_len"] = [
            *self.ask(Sampling(24, ignore_eos=True), Request((4,) * (MAX_LEN - 24), (1,)), Request((5, 6, 7), (2,))),
            *self.ask(Sampling(1), Request((4,) * (MAX_LEN - 1), (3,))),
        ]
        crowd = Request((4, 5, 6, 7) * 30, tuple(range(40)))  # more tokens of prompts than vLLM reads in one pass
        found["crowd"] = self.ask(Sampling(2), crowd)
        found["of a crowd"] = self.ask(Sampling(2), Request(crowd.prompt_ids, crowd.seeds[30:]))
        found["none"] = self.engine.generate([], Sampling(NEW), at_once=2)
        found["enough"] = [
            [asdict(each) for each in group]
            for group in self.engine.generate(REQUESTS, Sampling(24), at_once=3, enough=1)
        ]
        found["after enough"] = self.ask(Sampling(NEW))
        found |= self.synced() | self.slept() | self.restarted()
        found["version"], found["stats"] = self.engine.version, self.engine.stats()
        self.engine.close()
        self.engine.close()
        return found

    def ask(self, sampling: Sampling, *requests: Request) -> list[list[dict]]:
        made = self.engine.generate(requests or REQUESTS, sampling, at_once=2)
        return [[asdict(each) for each in group] for group in made]

    def synced(self) -> dict[str, Any]:
        """A -> B -> A: what it says of itself, and what it samples, after each."""
        found: dict[str, Any] = {"fingerprints a": self.fingerprints()}
        give(self.engine, self.own, self.b, 2)
        found |= {"fingerprints b": self.fingerprints(), "sampled from b": self.ask(Sampling(NEW))}
        give(self.engine, self.own, self.a, 3)
        return found | {"fingerprints a again": self.fingerprints(), "sampled from a": self.ask(Sampling(NEW))}

    def fingerprints(self) -> list | None:
        found = self.engine.fingerprints()
        return None if found is None else [[list(names), number] for names, number in found.items()]

    def slept(self) -> dict[str, Any]:
        """Each sleep and each wake twice; what was kept, and what was not and had to be pushed."""
        engine, found = self.engine, {}
        for keep in (True, False):
            for _ in range(2):
                engine.sleep(keep_weights=keep)
            found[f"asleep {keep}"] = self.failure(lambda: self.ask(Sampling(NEW)))
            for _ in range(2):
                engine.wake("weights")
            if not keep:
                give(engine, self.own, self.b, 4)
            for _ in range(2):
                engine.wake("kv_cache")
            found["woke with its own weights" if keep else "woke with new weights"] = self.ask(Sampling(NEW))
        return found

    def reloaded(self) -> dict[str, Any]:
        """The same where vLLM has no session for new weights, as in older versions."""
        own, vllm_transfer.has_session = vllm_transfer.has_session, lambda: False
        try:
            give(self.engine, self.own, self.b, 1)
            return self.synced()
        finally:
            vllm_transfer.has_session = own
            self.engine.close()

    def restarted(self) -> dict[str, Any]:
        self.engine.restart()
        give(self.engine, self.own, self.a, 5)
        return {"restarted": self.ask(Sampling(NEW))}

    def failure(self, do: Callable[[], Any]) -> str:
        try:
            do()
        except (AssertionError, RunFailed) as error:
            return f"{type(error).__name__}: {error}"
        return "none"


def process_state() -> dict[str, Any]:
    """What belongs to the trainer, and an engine must leave as it is."""
    return {
        "random numbers": [float(torch.rand(1)), random.random()],
        "threads": [torch.get_num_threads(), torch.set_num_threads.__module__],
        "signals": [str(signal.getsignal(each)) for each in (signal.SIGTERM, signal.SIGINT)],
        "joined": torch.distributed.is_initialized(),
        "children": _children(),
        "memory": Path("/proc/self/numa_maps").read_text().split()[1],  # by default, or bound to a node
    }


def seed_all() -> None:
    torch.manual_seed(3)
    random.seed(3)


def _children() -> int:
    tasks = Path("/proc/self/task").iterdir()
    return sum(len((task / "children").read_text().split()) for task in tasks)


def main(kind: str, folder: str, out: str) -> None:
    world, found = join_world(), {}
    seed_all()
    found["untouched"] = process_state()
    for layout in LAYOUTS:
        cases = Cases(kind, Path(folder), layout, world)
        seed_all()
        found[layout] = cases.run()
        found[layout]["afterwards"] = process_state()
        if kind == "vllm":
            found[f"{layout} reloaded"] = Cases(kind, Path(folder), layout, world).reloaded()
    Path(out).write_text(json.dumps(found, default=list))


if __name__ == "__main__":
    main(*sys.argv[1:])
