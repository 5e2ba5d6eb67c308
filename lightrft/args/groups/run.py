from __future__ import annotations

from dataclasses import dataclass

from lightrft.args.field import Witness, arg


@dataclass(frozen=True, kw_only=True)
class RunArgs:
    """Run control"""

    config: tuple[str, ...] = arg(
        (),
        "YAML files of flags, flat or under their group; a later file wins, the command line wins over all.",
        witness=Witness("--config no_such_file.yaml", "refused"),
    )
    print_args: str | None = arg(
        None,
        "Print every value with its source and stop; alone it means text.",
        choices=("text", "json"),
        nargs="?",
        unset="train",
        witness=Witness("--print_args", "output"),
    )
    dry_run: bool = arg(
        False, "Check everything, print what would run, and stop.", witness=Witness("--dry_run", "files")
    )
    strict_args: bool = arg(False, "Refuse what is otherwise a notice.", witness=Witness("--strict_args", "refused"))
