"""One contestant of a benchmark, in a process of its own: a line to it is answered by a line of JSON."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class Side:
    """command: what it runs. log: what it says beside its answers. variables: of its environment, beside those that
    all sides have."""

    def __init__(
        self, name: str, command: Sequence[str], log: Path, threads: int, variables: Mapping[str, str] | None = None
    ) -> None:
        self.name, self.log, pipe = name, log, subprocess.PIPE
        environment = {
            **os.environ,
            **{"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"},
            **{"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": ""},
            **(variables or {}),
        }
        with log.open("w") as told:
            self.child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=told, text=True, env=environment)

    def ask(self, *words: object) -> dict[str, Any]:
        assert self.child.stdin and self.child.stdout
        try:
            print(*words, file=self.child.stdin, flush=True)
            line = self.child.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise SystemExit(f"{self.name} ended early; the end of its log:\n{self.log.read_text()[-3000:]}")
        return json.loads(line)

    def stop(self) -> None:
        self.child.kill()
        self.child.wait()
