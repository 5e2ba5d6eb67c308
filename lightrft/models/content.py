"""What the weights are that a run reads, in a number for each flag: other processes, and a run that goes on, compare it
with theirs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lightrft.models.adapter_files import adapter_files
from lightrft.models.given import weight_files

if TYPE_CHECKING:
    from lightrft.args.groups.model import ModelArgs

ENDS = 1 << 12  # bytes at both ends of each tensor: training changes a tensor everywhere


def contents(args: ModelArgs) -> dict[str, str]:
    """A SHA-256 by flag: of `--pretrain`'s weights, and of what `--lora_path` holds. Files of safetensors are not read
    as a whole."""
    found = {"pretrain": _digest(part for path in weight_files(args) for part in _ends(path))}
    if args.lora_path is not None:
        config, weights = adapter_files(args)
        found["lora_path"] = _digest([config.read_bytes(), *_ends(weights)])
    return found


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _ends(path: Path) -> Iterator[bytes]:
    """The header of a file of safetensors, and both ends of each of its tensors."""
    with path.open("rb") as file:
        header = file.read(int.from_bytes(file.read(8), "little"))
        begin, entries = file.tell(), json.loads(header)
        yield header
        for name in sorted(entries.keys() - {"__metadata__"}):
            first, last = (begin + offset for offset in entries[name]["data_offsets"])
            for start in (first, max(last - ENDS, first)):
                file.seek(start)
                yield file.read(min(ENDS, last - start))
