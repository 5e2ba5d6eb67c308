"""The SHA-256 of a file."""

from __future__ import annotations

import hashlib
from pathlib import Path

PIECE = 1 << 20


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()
