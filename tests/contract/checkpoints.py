"""Checkpoints of several ranks. A script for torchrun, `checkpoints.py FOLDER OUT`: each rank writes what it saw."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import torch
from launch import run_rank

from lightrft.errors import Refused, RunFailed
from lightrft.loop.checkpoint_folder import CheckpointFolder
from lightrft.loop.checkpointing import Boundary, Checkpointer
from lightrft.loop.random_state import random_state
from lightrft.ranks.collectives import Collectives
from lightrft.ranks.launch import join_world, leave_world
from lightrft.strategy.base import Handle
from lightrft.strategy.state import WEIGHT, ModelState, Piece, StateReader

RECORD = {"arguments": {"pretrain": {"value": "tiny"}}}


class Sharded:
    """Two numbers on each rank, all of them equal. `fail` is called on what this rank does."""

    def __init__(self, ranks: Collectives) -> None:
        self.ranks, self.loaded, self.fail = ranks, [], lambda what: None

    def state(self, handle: Handle) -> ModelState:
        self.fail("state")
        piece = Piece(WEIGHT, "w", (2 * self.ranks.size,), 2 * self.ranks.rank, torch.full((2,), float(handle.module)))
        return ModelState([piece], {}, {})

    def load_state(self, handle: Handle, reader: StateReader) -> None:
        self.fail("load")
        handle.module = reader.read(WEIGHT, "w", 0, 2 * self.ranks.size).mean().item()
        self.loaded.append(reader.folder.parent.name)

    def use_loaded(self, handle: Handle) -> None:
        self.ranks.gather([None])

    def full_params(self, handle: Handle):
        for name in "abc":
            yield name, self.ranks.gather([handle.module])


class Case:
    """A folder, and a checkpointer for it on this rank; what all ranks saw is gathered in `seen`."""

    def __init__(self, path: Path, ranks: Collectives, **more: bool) -> None:
        self.path, self.ranks, self.strategy = path, ranks, Sharded(ranks)
        self.handle = Handle(0, torch.nn.ParameterDict({"w": torch.zeros(2 * ranks.size)}))
        folder = CheckpointFolder(path, 2, 1)
        more = {"with_hf": False, "structure": {}, **more}
        self.made = Checkpointer(folder, ranks, self.strategy, self.handle, {"policy": None}, **more)

    def boundary(self, step: int) -> Boundary:
        self.handle.module = step
        return Boundary(step, {"progress": {"step": step}, "record": RECORD}, random_state())

    def restore(self, apply=lambda state: []) -> list:
        found = self.made.restore(apply)
        return [self.handle.module, found and found.step, found and found.damaged]

    def said(self, do) -> list:
        """Kind and text of what `do` raises here, and what is in the folder then."""
        text = None
        try:
            do()
        except (RunFailed, Refused, MemoryError, ZeroDivisionError) as error:
            text = f"{type(error).__name__}: {error}"
        self.ranks.gather([None])
        return [text and re.sub(r" on \S+:| \([^()]*free\)", "", text), self.there()]

    def there(self) -> list[str]:
        found = sorted(path.name for path in self.path.iterdir()) if self.path.exists() else []
        self.ranks.gather([None])
        return found


@contextmanager
def failing(case: Case, rank: int, at: str, error: Exception):
    """`at`, "state" or "load", fails on one rank."""

    def fail(what: str) -> None:
        if what == at and case.ranks.rank == rank:
            raise error

    case.strategy.fail = fail
    yield
    case.strategy.fail = lambda what: None


def whole(case: Case) -> list:
    """Each rank wrote its own files, and draws its own numbers again."""
    random.seed(case.ranks.rank)
    path = case.made.save(case.boundary(1))
    wanted = random.random()
    files = sorted(json.loads((path / "state.json").read_text())["files"])
    case.handle.module = 0
    return [files, case.there(), case.restore(), random.random() == wanted, case.made.newest == (1, path)]


def a_disk_that_refuses(case: Case) -> list:
    """On the last rank, while it writes, while it copies; then on rank 0, when all have written."""
    case.made.save(case.boundary(1))
    last, seen = case.ranks.size - 1, []
    folder = case.made.folder
    for at in ("state", "write", "finish"):
        error, real = OSError(28, "No space left on device"), folder.finish
        with failing(case, last, at, error):
            boundary = case.boundary(2)
            if at == "write" and case.ranks.rank == last:
                boundary = Boundary(2, boundary.state, Refuses(error))
            if at == "finish":
                folder.finish = lambda step, error=error: (_ for _ in ()).throw(error)
            seen.append(case.said(lambda boundary=boundary: case.made.save(boundary)))
            folder.finish = real
    case.made.save(case.boundary(2))
    return [*seen, case.there()]


class Refuses(dict):
    """A random state that a disk takes no more of."""

    def __init__(self, error: Exception) -> None:
        super().__init__(torch="")
        self.error = error

    def items(self):
        raise self.error


def a_bug(case: Case) -> list:
    with failing(case, 1, "state", ZeroDivisionError("a bug")):
        return case.said(lambda: case.made.save(case.boundary(1)))


def a_folder_that_is_not_shared(case: Case) -> list:
    case.made.folder.begin = lambda step: case.path / "elsewhere"
    return case.said(lambda: case.made.save(case.boundary(1)))


def behind(case: Case) -> list:
    """The last rank is slow: nobody has the checkpoint before it is done, and none waits for it but where it must."""
    go = threading.Event()

    class Slow(dict):
        def items(self):
            go.wait(60)
            return super().items()

    boundary = case.boundary(1)
    if case.ranks.rank == case.ranks.size - 1:
        boundary = Boundary(1, boundary.state, Slow(boundary.random))
    case.strategy.fail = lambda what: time.sleep(0.1)
    case.made.begin(boundary)
    case.handle.module = 7  # the next step
    if case.ranks.rank != case.ranks.size - 1:
        case.made.writer._begun.sums.result()
    case.made.settle(wait=False)
    early = [case.made.newest, case.there()]
    go.set()
    case.made.begin(case.boundary(2))
    later = [case.made.newest[0], case.there()]
    case.made.settle()
    case.made.settle()
    first = StateReader(case.path / "step_000001/policy").read(WEIGHT, "w", 0, 2 * case.ranks.size).tolist()
    return [early, later, case.there(), first, case.restore()]


def damage(case: Case) -> list:
    """A flipped bit in the last rank's file of the newest; then a state that the loop on one rank cannot take."""
    for step in (1, 2):
        case.made.save(case.boundary(step))
    broken = case.path / "step_000002/policy" / f"rank_{case.ranks.size - 1:05d}.safetensors"
    if case.ranks.rank == 0:
        content = broken.read_bytes()
        broken.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    case.ranks.gather([None])
    seen = [case.restore(), list(case.strategy.loaded)]
    case.made.save(case.boundary(2))

    def apply(state):
        if case.ranks.rank == 1 and state["progress"]["step"] == 2:
            raise ValueError("no stream")
        return []

    return [*seen, case.restore(apply), case.there()]


def too_little_memory(case: Case) -> list:
    case.made.save(case.boundary(1))
    with failing(case, 1, "load", MemoryError("none left")):
        return case.said(case.restore)


def a_disk_that_does_not_give(case: Case) -> list:
    """To one rank, while the others have read their parts; then it does."""
    case.made.save(case.boundary(1))
    with failing(case, 1, "load", OSError(5, "Input/output error")):
        refused = case.said(case.restore)
    return [*refused, case.restore()]


def machines_that_share_no_disk(case: Case) -> list:
    """Each rank in a folder of its own: the last has a file less, one that is cut, or a file more; then the same."""
    case.made.save(case.boundary(1))
    own, before, seen = case.path / f"own_{case.ranks.rank}", Path.cwd(), []
    shutil.copytree(case.path / "step_000001", own / "ckpt/step_000001")
    os.chdir(own)
    there = Case(Path("ckpt"), case.ranks)
    file, last = Path("ckpt/step_000001/random_0.json"), case.ranks.rank == case.ranks.size - 1
    whole, more = file.read_text(), file.with_name("more")
    for left in (None, "half", whole):
        if last:
            file.unlink(missing_ok=True)
            if left:
                file.write_text(left)
                more.touch() if left == whole else None
        seen.append(there.said(there.restore))
    more.unlink(missing_ok=True)
    seen.append(there.restore())
    os.chdir(before)
    return seen


def exports(case: Case) -> list:
    """The last rank cannot copy what it holds; then rank 0 cannot write, with a part of the weights in hand."""
    with failing(case, case.ranks.size - 1, "state", OSError(28, "No space left on device")):
        seen = [case.said(lambda: case.made.save(case.boundary(1)))]

    def full(model, params, given, place):
        next(iter(params))
        raise OSError(28, "No space left on device")

    with patch("lightrft.loop.checkpointing.save_hf", full):
        seen.append(case.said(lambda: case.made.save(case.boundary(1))))
        seen.append(case.said(lambda: case.made.export(case.path)))
    with patch("lightrft.loop.checkpointing.save_hf", lambda *args: 1 / 0):
        seen.append(case.said(lambda: case.made.export(case.path)))
    return seen


def left_overs(case: Case) -> list:
    """Of a killed save of more ranks."""
    if case.ranks.rank == 0:
        (case.path / ".step_000003.tmp/policy").mkdir(parents=True)
        (case.path / ".step_000003.tmp/policy/rank_00007.safetensors").write_text("half")
    case.made.save(case.boundary(3))
    return [case.there(), sorted(path.name for path in (case.path / "step_000003/policy").iterdir())]


CASES = (
    whole,
    a_disk_that_refuses,
    a_bug,
    a_folder_that_is_not_shared,
    damage,
    too_little_memory,
    machines_that_share_no_disk,
    a_disk_that_does_not_give,
    left_overs,
)


def main(folder: str, out: str) -> None:
    ranks = Collectives(join_world(), everyone=True)
    found = {case.__name__: case(Case(Path(folder) / case.__name__, ranks)) for case in CASES}
    with patch("lightrft.loop.checkpointing.save_hf", lambda model, params, given, place: list(params)):
        found["exports"] = exports(Case(Path(folder) / "exports", ranks, with_hf=True))
    found["behind"] = behind(Case(Path(folder) / "behind", ranks, behind=True))
    everyone = ranks.gather([found])
    if ranks.rank == 0:
        Path(out).write_text(json.dumps(everyone, default=str))
    leave_world()


if __name__ == "__main__":
    run_rank(main)
