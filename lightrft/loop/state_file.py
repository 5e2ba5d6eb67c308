"""state.json of a checkpoint: the loop's state, the models' tensors, and the sums of what a run goes on from.

It is written after them, and after an export beside them; `state.sha256`, its own sum, is the last file. So a
checkpoint that has one is whole, unless a file was changed later; the sums show that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightrft.errors import Damaged, Refused
from lightrft.loop.checksums import Sums

NAME, OWN_SUM = "state.json", "state.sha256"
OF_EARLIER_VERSIONS = "random.pt"  # random numbers were pickled, and tensors laid out as each strategy's library does
Shapes = Mapping[str, list[int]]  # of a model's tensors, by their names


def write_state(folder: Path, state: Mapping[str, Any], models: Mapping[str, Shapes], files: Sums) -> None:
    """files: what a run goes on from, by the ranks that wrote it."""
    content = json.dumps({**state, "models": models, "files": files}, default=str).encode()
    (folder / NAME).write_bytes(content)
    (folder / OWN_SUM).write_text(own_sum(content))


def own_sum(content: bytes) -> str:
    """As `sha256sum` prints it, and checks it."""
    return f"{hashlib.sha256(content).hexdigest()}  {NAME}\n"


def read_state(
    folder: Path, structure: Mapping[str, Any], models: Mapping[str, Shapes], contents: Mapping[str, str]
) -> dict[str, Any]:
    """Raises `Damaged` where it is not as it was written, `Refused` for a checkpoint of other flags or models, or of a
    format before this."""
    state = check_as_it_was(folder, structure, contents)
    _check_models(state["models"], models, state["record"]["arguments"], folder)
    return state


def check_as_it_was(folder: Path, structure: Mapping[str, Any], contents: Mapping[str, str]) -> dict[str, Any]:
    """The state, less what is asked of the models. Raises as `read_state` does."""
    if (folder / OF_EARLIER_VERSIONS).exists():
        raise Refused(
            f"--load_checkpoint: {folder} was made by an earlier version, whose format is not read any more; go on "
            "with that version, or start anew with another --save_path"
        )
    content, expected = (folder / NAME).read_bytes(), (folder / OWN_SUM).read_bytes()
    if own_sum(content).encode() != expected:
        raise Damaged(f"{NAME} is not as it was written")
    state = json.loads(content)
    _check_flags(state["record"]["arguments"], structure, folder)
    _check_contents(state["record"].get("contents", {}), contents, folder)
    return state


def _check_flags(arguments: Mapping[str, Any], structure: Mapping[str, Any], folder: Path) -> None:
    """The flags on which a checkpoint's tensors depend must be as they were."""
    for flag, now in structure.items():
        was = arguments[flag]["value"]
        if was != now:
            raise Refused(
                f"--{flag} {now}: the checkpoint {folder} was made with {was}; go on with that, or start anew"
            )


def _check_models(
    saved: Mapping[str, Shapes], models: Mapping[str, Shapes], arguments: Mapping[str, Any], folder: Path
) -> None:
    for name, now in models.items():
        if name not in saved:
            raise Refused(f"--advantage_estimator: the checkpoint {folder} was made without a {name}; start anew")
        difference = first_difference(saved[name], now)
        if difference:
            own = name == "critic" and arguments["critic_pretrain"]["value"]
            flag = "critic_pretrain" if own else "pretrain"
            raise Refused(
                f"--{flag}: the checkpoint {folder} is of another model ({difference}); go on with the "
                f"--{flag} {arguments[flag]['value']} that it was made with, or start anew with another --save_path"
            )


def _check_contents(saved: Mapping[str, str], contents: Mapping[str, str], folder: Path) -> None:
    """contents: by flag, of the weights without which the checkpoint's tensors are another model's."""
    for flag, now in contents.items():
        if saved.get(flag, now) != now:
            raise Refused(
                f"--{flag}: the checkpoint {folder} holds adapters alone, of other weights than are there now; bring "
                "those back, or start anew with another --save_path"
            )


def first_difference(was: Shapes, now: Shapes) -> str | None:
    """Of two models, by names and shapes of their tensors."""
    for name in sorted(was.keys() | now.keys()):
        if name not in now or name not in was:
            return f"{name} is only in {'the checkpoint' if name in was else 'this model'}"
        if was[name] != now[name]:
            return f"{name} is {was[name]} there, {now[name]} here"
    return None
