"""What wandb's service wrote in offline mode, read back with wandb's own protobuf; and what trackers warn of."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK = 1 << 15
HEADER = struct.Struct("<IHB")  # checksum, length, kind of piece
WHOLE, LAST = 1, 4


@dataclass
class WandbRun:
    """One `offline-run-*` folder: a resumed run has one more, of the same id."""

    id: str = ""
    project: str = ""
    entity: str = ""
    name: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    history: dict[int, dict[str, float]] = field(default_factory=dict)  # step -> values
    exit_code: int | None = None


def wandb_run(save_path: Path) -> dict[str, str]:
    """How the newest run is called, and by whom."""
    run = wandb_runs(save_path)[-1]
    return {"project": run.project, "entity": run.entity, "name": run.name}


def wandb_runs(save_path: Path) -> list[WandbRun]:
    logs = save_path.glob("logs/wandb/offline-run-*/run-*.wandb")
    return [read_run(path) for path in sorted(logs, key=lambda path: path.stat().st_mtime_ns)]


def read_run(path: Path) -> WandbRun:
    from wandb.proto.wandb_internal_pb2 import Record

    found = WandbRun()
    for content in records(path.read_bytes()):
        record = Record.FromString(content)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            found.id, found.project, found.entity, found.name = run.run_id, run.project, run.entity, run.display_name
            found.config = {entry.key: json.loads(entry.value_json) for entry in run.config.update}
            found.config.pop("_wandb", None)
        elif kind == "history":
            values = {
                "/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item
            }
            own = {name: value for name, value in values.items() if not name.startswith("_")}
            found.history.setdefault(record.history.step.num, {}).update(own)
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
    return found


def records(log: bytes) -> Iterator[bytes]:
    """LevelDB's log format: records in pieces that never cross a block of 32 KiB; the file's header takes 7 bytes."""
    at, record = 7, b""
    while at < len(log):
        room = BLOCK - at % BLOCK
        if room < HEADER.size:
            at += room
            continue
        _, length, kind = HEADER.unpack_from(log, at)
        at += HEADER.size
        record, at = record + log[at : at + length], at + length
        if kind in (WHOLE, LAST):
            yield record
            record = b""


def warnings(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.startswith("warning:")]
