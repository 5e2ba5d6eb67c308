"""run.json: what exactly was run, with what, on what. Written first, and compared when a run is resumed."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("lightrft", "torch", "transformers", "deepspeed", "accelerate", "numpy", "reasoning-gym", "vllm", "sglang")
SHOWN_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "NCCL_DEBUG",
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "TORCH_DISTRIBUTED_DEBUG",
    "TORCH_NCCL_AVOID_RECORD_STREAMS",
)


def package_versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_state(folder: Path) -> dict[str, Any]:
    """Revision and whether the tree is dirty; empty outside a repository."""
    try:
        revision = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, timeout=10)
        status = subprocess.run(
            ["git", "status", "--porcelain"], cwd=folder, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return (
        {"revision": revision.stdout.strip(), "dirty": bool(status.stdout.strip())} if not revision.returncode else {}
    )


def file_hashes(paths: Iterable[str]) -> dict[str, str]:
    return {path: hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths if Path(path).is_file()}


def make_record(arguments: Mapping[str, Any], files: Iterable[str], runtime: Mapping[str, Any]) -> dict[str, Any]:
    """arguments: flag -> value and source; files: what to hash; runtime: what was chosen for this machine."""
    return {
        "arguments": dict(arguments),
        "runtime": dict(runtime),
        "git": git_state(Path(__file__).parent),
        "hashes": file_hashes(files),
        "packages": package_versions(),
        "hardware": {
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
        },
        "environment": {name: os.environ[name] for name in SHOWN_VARIABLES if name in os.environ},
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One line for each argument, hash and version that changed between a run and its resumption."""
    old = {f"--{name}": entry["value"] for name, entry in before.get("arguments", {}).items()}
    new = {f"--{name}": entry["value"] for name, entry in now.get("arguments", {}).items()}
    old |= {f"hash of {name}": value[:12] for name, value in before.get("hashes", {}).items()}
    new |= {f"hash of {name}": value[:12] for name, value in now.get("hashes", {}).items()}
    old |= {f"version of {name}": value for name, value in before.get("packages", {}).items()}
    new |= {f"version of {name}": value for name, value in now.get("packages", {}).items()}
    expected = {"--load_checkpoint", "--quiet", "--dry_run"}
    changed = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    return [f"{name} was {old.get(name)}, is {new.get(name)}" for name in changed if name not in expected]


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Whole or not at all."""
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_text(json.dumps(content, indent=2, default=str) + "\n")
    os.replace(beside, path)
