"""Where `--pretrain` is: a folder or a name of the hub, and what files it has."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightrft import hub
from lightrft.errors import Refused, os_errors_as

if TYPE_CHECKING:
    from lightrft.args.groups.model import ModelArgs

REMEDIES = {  # a word in the library's message: what helps
    "trust_remote_code": "add --trust_remote_code",
    "flash_attn": "install flash-attn, or use --attn_implementation sdpa",
    "FlashAttention": "install flash-attn, or use --attn_implementation sdpa",
    "sentencepiece": "pip install sentencepiece protobuf, or give a folder with tokenizer.json",
    "does not recognize this architecture": "install a newer transformers, or give a model that this one knows",
}
NO_MODEL = {  # a file in a folder without config.json: what it is, and what would work
    "adapter_config.json": "it is an adapter without its model; merge the two (peft: merge_and_unload) and give that",
    "*.gguf": "it holds GGUF weights; give the model's folder of safetensors",
    "params.json": "it is in its maker's own format; give the folder in Hugging Face's",
    "model_index.json": "it is a pipeline of diffusers; give a language model",
}


def _path(args: ModelArgs) -> Path:
    return Path(os.path.expanduser(args.pretrain))  # noqa: PTH111 - pathlib raises for a user who is not known


def place(args: ModelArgs) -> str:
    """A folder with `~` written out, or the hub name as it is."""
    path = _path(args)
    return str(path) if path.is_dir() else args.pretrain


def hub_options(args: ModelArgs) -> dict[str, Any]:
    """For every `from_pretrained`: it asks the cache alone where the hub does not answer."""
    cache_alone = not Path(place(args)).is_dir() and hub.out_of_reach() is not None
    return {"cache_dir": args.cache_dir, **({"local_files_only": True} if cache_alone else {})}


def code_options(args: ModelArgs) -> dict[str, Any]:
    return {"trust_remote_code": args.trust_remote_code, **hub_options(args)}


def find_file(args: ModelArgs, name: str) -> Path | None:
    """A file of the model, from its folder or the hub; None where it has no such file."""
    from transformers.utils.hub import cached_file

    missing_is_none = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    file = cached_file(place(args), name, **hub_options(args), **missing_is_none)
    return None if file is None else Path(file)


def read_settings(args: ModelArgs, name: str) -> dict[str, Any]:
    """The object in a JSON file of the model; {} where it has no such file. Raises `Refused` for other content."""
    file = find_file(args, name)
    try:
        settings = json.loads(file.read_text(encoding="utf-8")) if file else {}
    except (ValueError, RecursionError) as error:
        raise refusal(args, name, error) from error
    if not isinstance(settings, dict):
        raise Refused(f"--pretrain {args.pretrain}: its {name} holds no JSON object; give a whole model folder")
    return settings


def refusal(args: ModelArgs, what: str, error: Exception) -> Refused:
    """A library's error in one line, with what would help."""
    text = " ".join(str(error).split()).partition(" For details look at ")[0]  # at a table that is not shown
    remedy = next(
        (help_ for word, help_ in REMEDIES.items() if word in text), "give a whole model folder or a hub name"
    )
    reason = f"{type(error).__name__}: {text[:200]}"
    where = f" with --cache_dir {args.cache_dir}" if args.cache_dir else ""
    return Refused(f"--pretrain {args.pretrain}{where}: the {what} cannot be loaded ({reason}); {remedy}")


def check_pretrain(args: ModelArgs) -> None:
    """Refuses a `--pretrain` that names no model, before a library guesses or waits."""
    with os_errors_as(Refused, what="--pretrain"):  # too long a name, a folder without permission
        path = _path(args)
        exists, is_folder = path.exists(), path.is_dir()
    if is_folder:
        _check_folder(args, path)
    elif exists:
        raise Refused(f"--pretrain {args.pretrain}: no such model folder, it is a file; give a folder with config.json")
    elif _is_path(args.pretrain):
        remedy = hub.near(path) or "; give a folder with config.json or a hub name"
        raise Refused(f"--pretrain {args.pretrain}: no such model folder{remedy}")
    else:
        _check_hub_name(args, path)


def _is_path(name: str) -> bool:
    """Whether it is no hub name: those have at most one slash, and the part before it is no folder here."""
    parts = Path(name).parts
    return name.startswith((".", "/", "~")) or len(parts) > 2 or (len(parts) == 2 and Path(parts[0]).is_dir())


def _check_folder(args: ModelArgs, folder: Path) -> None:
    if (folder / "adapter_config.json").is_file():  # beside a config too: the library would load another model
        raise Refused(f"--pretrain {args.pretrain}: {NO_MODEL['adapter_config.json']}")
    if (folder / "config.json").is_file():
        return
    below = sorted(folder.glob("*/config.json"))
    if below:
        raise Refused(f"--pretrain {args.pretrain}: it has no config.json; is it {below[0].parent}?")
    what = next((text for pattern, text in NO_MODEL.items() if any(folder.glob(pattern))), None)
    raise Refused(f"--pretrain {args.pretrain}: it has no config.json; {what or 'give a Hugging Face model folder'}")


def _check_hub_name(args: ModelArgs, path: Path) -> None:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(args.pretrain)
    except HFValidationError:
        raise Refused(f"--pretrain {args.pretrain}: no such model folder{hub.near(path)}, and no hub name") from None
    if hub.is_cached(args.pretrain, "config.json", args.cache_dir):
        return
    similar = hub.nearest(path, "config.json", cutoff=0.8) if len(path.parts) == 1 else None
    if similar:
        remedy = f"is it {similar}? One of the hub goes by owner/name"
        raise Refused(f"--pretrain {args.pretrain}: no such model folder; {remedy}")
    reason = hub.out_of_reach()
    if reason is not None:
        near = hub.near(path) or hub.near(Path(path.name), "config.json")
        where = f" with --cache_dir {args.cache_dir}" if args.cache_dir else ""
        raise Refused(
            f"--pretrain {args.pretrain}{where}: no such folder here{near}, and as a hub name it "
            f"cannot be loaded: {reason}"
        )
