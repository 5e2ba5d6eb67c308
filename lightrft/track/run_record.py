"""run.json: what exactly was run, with which versions, on which machine. A resumed run is compared with it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from lightrft.args.field import as_text
from lightrft.digest import sha256_of
from lightrft.errors import RunFailed, os_errors_as
from lightrft.track.step_files import set_aside, write_whole

PACKAGES = (
    *("lightrft", "torch", "transformers", "deepspeed", "accelerate", "peft", "numpy", "vllm", "sglang"),
    *("bitsandbytes", "datasets", "pyarrow", "reasoning-gym", "math-verify", "tensorboard", "wandb"),
)
SMALL, IN_ALL = 64 << 20, 1 << 30  # bytes: of a file whose contents are hashed, and of all such in a folder
SHOWN_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "NCCL_DEBUG",
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "TORCH_DISTRIBUTED_DEBUG",
    "TORCH_NCCL_AVOID_RECORD_STREAMS",
)

PASSES = (  # flags of how training passes are computed
    *("micro_train_batch_size", "max_tokens_per_micro_batch", "packing_samples", "share_prompts"),
    *("fused_linear_logprob", "chunk_size", "gradient_checkpointing", "recompute_granularity", "activation_offload"),
)
COME_TO = {  # what is chosen for a machine, and the flags of which one that changed says as much
    "engine": "engine_type engine_dtype engine_tp_size enable_engine_sleep",
    "strategy": "fsdp zero_stage fsdp_cpu_offload fsdp_reshard adam_offload ref_offload meta_init",
    "precision": "bf16 fp16",
    "training": " ".join(PASSES),
}
ROUND = {  # what changes nothing but rounding
    *PASSES,
    *("training", "micro_rollout_batch_size", "eval_batch_size", "attn_implementation"),
    *("fsdp", "zero_stage", "zpg", "hybrid_shard_size", "sp_size", "overlap_comm", "meta_init", "ref_shard_size"),
    *("fsdp_cpu_offload", "fsdp_reshard", "adam_offload", "ref_offload"),
}


def package_versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


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


def hashes(paths: Iterable[str]) -> dict[str, str]:
    """A SHA-256 for each file and folder; what is neither (a hub name) is left out."""
    named = ((name, Path(name)) for name in paths)
    return {name: _folder_hash(path) if path.is_dir() else _file_hash(path) for name, path in named if path.exists()}


def _file_hash(path: Path, most: int = SMALL) -> str:
    """Of the contents of a file of at most `most` bytes; of a larger one's size and time, which takes no time."""
    facts = path.stat()
    if facts.st_size > most:
        return hashlib.sha256(f"{facts.st_size} {facts.st_mtime_ns}".encode()).hexdigest()
    return sha256_of(path)


def _folder_hash(folder: Path) -> str:
    """Of the sorted lines `<hash of the file>  <its path inside the folder>`, as `sha256sum` would print them."""
    digest, left = hashlib.sha256(), IN_ALL
    for name in sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()):
        size, most = (folder / name).stat().st_size, min(SMALL, left)
        left -= size if size <= most else 0
        digest.update(f"{_file_hash(folder / name, most)}  ".encode() + os.fsencode(name) + b"\n")
    return digest.hexdigest()


def make_record(
    arguments: Mapping[str, Any], files: Iterable[str], runtime: Mapping[str, Any], contents: Mapping[str, str]
) -> dict[str, Any]:
    """arguments: flag -> value and source; files: what to hash; runtime: what was chosen for this machine; contents:
    flag -> a hash of the weights that it names."""
    return {
        "arguments": dict(arguments),
        "runtime": dict(runtime),
        "git": git_state(Path(__file__).parent),
        "hashes": hashes(files),
        "contents": dict(contents),
        "packages": package_versions(),
        "hardware": {
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "memory_gib": _memory_gib(),
            "python": platform.python_version(),
        },
        "environment": {name: os.environ[name] for name in SHOWN_VARIABLES if name in os.environ},
    }


def _memory_gib() -> float | None:
    """Of the host; None where the system does not say."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30), 1)
    except (ValueError, OSError):
        return None


def write_record(record: Mapping[str, Any], log_dir: Path, save_path: Path, *, fresh: bool) -> None:
    """The first file that a run writes; after it nothing is refused. A fresh run sets an older one aside."""
    what = f"--save_path {save_path}, --log_dir {log_dir}: run.json could not be written"
    with os_errors_as(RunFailed, what, "make room there, or choose other folders"):
        for folder in (log_dir, save_path):
            folder.mkdir(parents=True, exist_ok=True)
        if fresh:
            set_aside(log_dir / "run.json")
        write_json(log_dir / "run.json", record)


def changes_told(
    before: Mapping[str, Any], now: Mapping[str, Any], cannot_matter: Callable[[str, Any], bool]
) -> list[str]:
    """What a run that goes on says of them: a warning each, and one line for all that change rounding alone.

    cannot_matter: whether a flag has no effect now, nor would have with the value that it had.
    """
    arguments = before.get("arguments", {})
    idle = {f"--{flag}" for flag, entry in arguments.items() if cannot_matter(flag, entry["value"])}
    found = {name: text for name, text in differences(before, now).items() if name not in idle}
    rounding = [found.pop(name) for name in list(found) if name.removeprefix("--") in ROUND]
    alone = "notice: changed since that checkpoint, which only changes rounding: "
    warnings = [f"warning: changed since that checkpoint: {text}" for text in found.values()]
    return warnings + ([f"{alone}{'; '.join(rounding)}"] if rounding else [])


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """By name, in words, each argument, hash and version that changed between a run and its resumption."""
    old, new = _compared(before), _compared(now)
    expected = {"--load_checkpoint", "--quiet", "--dry_run", "--ckpt_path", "--save_path"}  # folders are told by name
    changed = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    expected |= {f"--{name}" for name in _derived(before) & _derived(now)}
    expected |= {name for name, flags in COME_TO.items() if any(f"--{flag}" in changed for flag in flags.split())}
    told = (name for name in changed if name not in expected)
    return {name: f"{name} was {_in_words(name, old)}, is {_in_words(name, new)}" for name in told}


def _in_words(name: str, values: Mapping[str, Any]) -> str:
    """As `--print_args` shows it; what is a text already stays one."""
    value = values.get(name)
    if isinstance(value, str) and not name.startswith("--"):
        return value
    return "none" if value is None else as_text(value)


def _derived(record: Mapping[str, Any]) -> set[str]:
    """Flags whose value follows from another flag: that one is compared."""
    return {
        name for name, entry in record.get("arguments", {}).items() if entry.get("source", "").startswith("follows ")
    }


def _compared(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a resumed run should have in common with the run before, under names for the user."""
    git, hardware = record.get("git", {}), record.get("hardware", {})
    return {
        **{f"--{name}": entry["value"] for name, entry in record.get("arguments", {}).items()},
        **{f"hash of {name}": value[:12] for name, value in record.get("hashes", {}).items()},
        **{f"hash of what --{flag} holds": value[:12] for flag, value in record.get("contents", {}).items()},
        **{f"version of {name}": value for name, value in record.get("packages", {}).items()},
        **{name: value for name, value in record.get("runtime", {}).items()},
        "git revision": git.get("revision"),
        "whether the git tree is dirty": git.get("dirty"),
        "version of python": hardware.get("python"),
        "number of cores": hardware.get("cores"),
    }


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_whole(path, json.dumps(content, indent=2, default=str) + "\n")
