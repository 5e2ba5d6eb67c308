"""Whether all ranks see the same checkpoint: on several machines a folder may be another one, or not there yet."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

from lightrft.errors import Refused
from lightrft.loop.checksums import files_below
from lightrft.ranks.base import Ranks
from lightrft.ranks.together import together

Sizes = Mapping[str, int]  # of the files below a folder, in bytes


def check_shared(path: Path, ranks: Ranks) -> None:
    """Raises `Refused` on all ranks where one sees other files in the checkpoint, or of other sizes, than rank 0.

    What is only missing on one machine is not damaged: it would be passed over, and removed by the next save.
    """
    if ranks.size == 1:
        return
    mine = _sizes(path)
    host, first = ranks.gather([(socket.gethostname(), mine if ranks.rank == 0 else {})])[0]
    with together(ranks):
        name = min((name for name in first.keys() | mine.keys() if first.get(name) != mine.get(name)), default=None)
        if name is not None:
            here = f"{_seen(mine, name)} for rank {ranks.rank} on {socket.gethostname()}"
            raise Refused(
                f"--load_checkpoint: {path / name} is {_seen(first, name)} for rank 0 on {host}, and {here}; is "
                "--ckpt_path on a file system that all machines share? If it is, start again when they see the same"
            )


def _sizes(path: Path) -> Sizes:
    return {file.relative_to(path).as_posix(): file.stat().st_size for file in files_below(path)}


def _seen(sizes: Sizes, name: str) -> str:
    return f"there with {sizes[name]} bytes" if name in sizes else "not there"
