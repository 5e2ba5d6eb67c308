"""Where a model or an adapter is: a folder or a name of the hub, and what files it has."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
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
CONFIG, OF_AN_ADAPTER = "config.json", "adapter_config.json"
NO_MODEL = {  # a file in a folder without config.json: what it is, and what would work
    "*.gguf": "it holds GGUF weights; give the model's folder of safetensors",
    "params.json": "it is in its maker's own format; give the folder in Hugging Face's",
    "model_index.json": "it is a pipeline of diffusers; give a language model",
}


@dataclass(frozen=True)
class Kind:
    """What a flag names: a folder that holds `file`, or the hub's name of one."""

    flag: str
    what: str
    file: str


MODEL, CRITIC = Kind("--pretrain", "model", CONFIG), Kind("--critic_pretrain", "model", CONFIG)
ADAPTER = Kind("--lora_path", "adapter", OF_AN_ADAPTER)


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


def check_place(args: ModelArgs, kind: Kind = MODEL) -> None:
    """Refuses an `args.pretrain` that names nothing of that kind, before a library guesses or waits."""
    with os_errors_as(Refused, what=kind.flag):  # too long a name, a folder without permission
        path = _path(args)
        exists, is_folder = path.exists(), path.is_dir()
    missing = f"{kind.flag} {args.pretrain}: no such {kind.what} folder"
    if is_folder:
        fault = _fault_of_adapter(path) if kind is ADAPTER else _fault_of_model(args, path, kind)
        if fault is not None:
            raise Refused(f"{kind.flag} {args.pretrain}: {fault}")
    elif exists:
        raise Refused(f"{missing}, it is a file; give a folder with {kind.file}")
    elif _is_path(args.pretrain):
        raise Refused(f"{missing}{hub.near(path) or f'; give a folder with {kind.file} or a hub name'}")
    else:
        _check_hub_name(args, path, kind, missing)


def _is_path(name: str) -> bool:
    """Whether it is no hub name: those have at most one slash, and the part before it is no folder here."""
    parts = Path(name).parts
    return name.startswith((".", "/", "~")) or len(parts) > 2 or (len(parts) == 2 and Path(parts[0]).is_dir())


def _fault_of_model(args: ModelArgs, folder: Path, kind: Kind) -> str | None:
    if (folder / OF_AN_ADAPTER).is_file():  # beside a config too: the library would load another model
        return _of_an_adapter(args, folder, kind)
    if (folder / CONFIG).is_file():
        return None
    what = next((text for pattern, text in NO_MODEL.items() if any(folder.glob(pattern))), None)
    return _below(folder, CONFIG) or f"it has no {CONFIG}; {what or 'give a Hugging Face model folder'}"


def _fault_of_adapter(folder: Path) -> str | None:
    if (folder / OF_AN_ADAPTER).is_file():
        return None
    if (folder / CONFIG).is_file():
        return f"it has no {OF_AN_ADAPTER}: it is a model, which --pretrain takes; give the folder of a PEFT adapter"
    return _below(folder, OF_AN_ADAPTER) or f"it has no {OF_AN_ADAPTER}; give the folder of a PEFT adapter"


def _of_an_adapter(args: ModelArgs, folder: Path, kind: Kind) -> str:
    """Where --pretrain names an adapter: what would start from it. A critic has no adapters."""
    try:
        base = json.loads((folder / OF_AN_ADAPTER).read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        base = None
    what = f"it is an adapter{f' of {base}' if base else ''}, not a model"
    if kind is CRITIC:
        return f"{what}; merge the two (peft: merge_and_unload) and give that"
    use = f"{what}; use --pretrain {base or 'MODEL'} --lora_path {args.pretrain}"
    return use if base else f"{use}, where MODEL is the model that it was trained on"


def _below(folder: Path, file: str) -> str | None:
    below = sorted(folder.glob(f"*/{file}"))
    return f"it has no {file}; is it {below[0].parent}?" if below else None


def _check_hub_name(args: ModelArgs, path: Path, kind: Kind, missing: str) -> None:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(args.pretrain)
    except HFValidationError:
        raise Refused(f"{missing}{hub.near(path)}, and no hub name") from None
    adapter = find_file(args, OF_AN_ADAPTER) if hub.is_cached(args.pretrain, OF_AN_ADAPTER, args.cache_dir) else None
    if adapter is not None and kind is not ADAPTER:
        raise Refused(f"{kind.flag} {args.pretrain}: {_of_an_adapter(args, adapter.parent, kind)}")
    if hub.is_cached(args.pretrain, kind.file, args.cache_dir):
        return
    similar = hub.nearest(path, kind.file, cutoff=0.8) if len(path.parts) == 1 else None
    if similar:
        raise Refused(f"{missing}; is it {similar}? One of the hub goes by owner/name")
    reason = hub.out_of_reach()
    if reason is not None:
        near = hub.near(path) or hub.near(Path(path.name), kind.file)
        where = f" with --cache_dir {args.cache_dir}" if args.cache_dir else ""
        raise Refused(
            f"{kind.flag} {args.pretrain}{where}: no such folder here{near}, and as a hub name it "
            f"cannot be loaded: {reason}"
        )
