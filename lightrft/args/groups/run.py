from __future__ import annotations

from dataclasses import dataclass

from lightrft.args.field import Witness, arg
from lightrft.args.presets import preset_names


@dataclass(frozen=True, kw_only=True)
class RunArgs:
    """Run control"""

    config: tuple[str, ...] = arg(
        (),
        "YAML files of flags, flat or under their group; a later file wins, the command line wins over all.",
        witness=Witness("--config other.yaml", "metrics"),
        path=True,
    )
    mode: str | None = arg(
        None,
        "Preset of defaults, in lightrft/presets: local for one small machine, cluster for many GPUs.",
        choices=preset_names,
        unset="no preset",
        witness=Witness("--mode local", "files", given="--save_steps 1"),
    )
    print_args: str | None = arg(
        None,
        "Print every value with its source and stop; alone it means text, changed leaves out plain defaults.",
        choices=("text", "json", "changed"),
        nargs="?",
        unset="train",
        witness=Witness("--print_args", "output"),
    )
    dry_run: bool = arg(
        False, "Check everything, print what would run, and stop.", witness=Witness("--dry_run", "files")
    )
    strict_args: bool = arg(False, "Refuse what is otherwise a notice.", witness=Witness("--strict_args", "refused"))
    assume_gpus: str | None = arg(
        None,
        "Check and plan for other hardware, as in 1x80GB, and stop; implies --dry_run.",
        unset="this machine",
        witness=Witness("--assume_gpus 1x80GB", "files"),
    )
    watchdog_s: float | None = arg(
        None,
        "Seconds without progress of any process after which each says where it is and the run ends, with exit code 3.",
        gt=0,
        recommended=(20, 86400),
        unset="never",
        witness=Witness("--watchdog_s 600", "output", without="--quiet"),
    )
