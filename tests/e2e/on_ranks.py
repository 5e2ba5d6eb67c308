"""Runs of the real program on several ranks: many command lines in one launch, since starting torch takes seconds.

As a script under torchrun, `on_ranks.py CASES OUT`, it runs each command line of the JSON file CASES in the folder
where it was started, and leaves how they ended in `OUT.<rank>`.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from children import environment
from runs import ROOT, Ended, call

from lightrft.ranks.launch import leave_world

HERE = Path(__file__).parent


def torchrun(processes: int, *more: str) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", *more]


def free_ports(count: int) -> list[int]:
    """All held at once, so that they differ."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def of_launch() -> dict[str, str]:
    """One thread a rank, as every test has."""
    return environment(PYTHONPATH=f"{ROOT}:{HERE}:{HERE.parent}", OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")


def run_on(
    processes: int, lines: list[list[str]], folder: Path, *, seconds: int = 300, script: str = "on_ranks.py"
) -> list[list[Ended]]:
    """How each command line ended, on each rank."""
    (folder / "cases.json").write_text(json.dumps(lines))
    command = [
        "timeout",
        "-k",
        "5",
        str(seconds),
        *torchrun(processes, str(HERE / script), "cases.json", "ended"),
    ]
    done = subprocess.run(command, cwd=folder, env=of_launch(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    told = [json.loads((folder / f"ended.{rank}").read_text()) for rank in range(processes)]
    return [[Ended(**ended) for ended in of_line] for of_line in zip(*told, strict=True)]


def port_of(number: int) -> str:
    """A free one for each run, which the first rank finds: the launcher's store keeps what ranks of the run before
    have told each other."""
    told = Path(f"port.{number}")
    if os.environ["RANK"] == "0":
        Path(f"{told}.tmp").write_text(str(*free_ports(1)))
        Path(f"{told}.tmp").rename(told)
    while not told.exists():
        time.sleep(0.01)
    return told.read_text()


def main(cases: str, out: str) -> None:
    ended = []
    for number, line in enumerate(json.loads(Path(cases).read_text())):
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port_of(number), TORCHELASTIC_USE_AGENT_STORE="False")
        ended.append(asdict(call(line)))
        leave_world()  # a rank that has failed does not: it ends
    Path(f"{out}.{os.environ['RANK']}").write_text(json.dumps(ended))
    os._exit(0)  # libraries' caches hold the ended process groups, whose threads abort an interpreter that ends


if __name__ == "__main__":
    main(*sys.argv[1:])
