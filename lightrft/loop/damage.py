"""Why a checkpoint cannot be loaded: it is damaged, or the machine fails and the checkpoint may well be whole."""

from __future__ import annotations

from pathlib import Path

from lightrft.errors import Damaged, Refused, is_out_of_memory, os_error_text
from lightrft.ranks.failure import is_of_the_group


def check_damage(error: Exception, path: Path) -> None:
    """Raises where the checkpoint may well be whole: too little memory, a rank that has gone, a disk or permissions
    that refuse, a state that another version has written.

    A damaged one is passed over for an older one, and the next save removes it.
    """
    if is_out_of_memory(error) or is_of_the_group(error):
        raise error
    missing = isinstance(error, (FileNotFoundError, NotADirectoryError, IsADirectoryError))
    if isinstance(error, KeyError):  # what is written is what was meant: its sums are right
        raise Refused(
            f"--load_checkpoint: {path} was made by another version: it has no entry {error}; go on with that version, "
            "or start anew with another --save_path"
        ) from error
    if isinstance(error, OSError) and error.errno is not None and not missing:
        raise Refused(
            f"--load_checkpoint: {path} cannot be read: {os_error_text(error)}; mend that, or move the folder away to "
            "go on from the checkpoint before"
        ) from error


def why_damaged(error: Exception, path: Path) -> str:
    """In words for the user, of the checkpoint at `path`."""
    if isinstance(error, Damaged):
        return str(error)
    if isinstance(error, NotADirectoryError):
        return "it is a file, not a folder"
    if isinstance(error, FileNotFoundError):
        return f"{str(error.filename).removeprefix(f'{path}/')} is missing"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
