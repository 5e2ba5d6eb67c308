"""The SHA-256 of a file."""

from __future__ import annotations

import hashlib
from pathlib import Path

from lightrft.ranks.pulse import PULSE

PIECE = 1 << 20


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
            PULSE.beat()  # a file just written comes from memory: no byte of a disk shows that it goes on
    return digest.hexdigest()
