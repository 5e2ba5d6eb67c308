"""Adapters in files, as PEFT has them: adapter_config.json and adapter_model.safetensors."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightrft.args.conditions import adapters_flag
from lightrft.errors import Refused, error_text
from lightrft.models.export import replacing, write_files
from lightrft.models.given import Given
from lightrft.models.source import ADAPTER, check_place, find_file, place
from lightrft.models.source import OF_AN_ADAPTER as CONFIG

if TYPE_CHECKING:
    from torch import Tensor

    from lightrft.args.groups.model import ModelArgs

WEIGHTS = "adapter_model.safetensors"
OF_BASE = ("config.json", "generation_config.json")
PLAIN = (True, False, "gaussian")  # ways to begin that leave the weights of the model as they are
PREFIX = "base_model.model."  # of every name in PEFT's files
OTHER = (  # what of an adapter's configuration is not plain LoRA
    *("use_dora", "use_qalora", "lora_bias", "modules_to_save", "target_parameters", "trainable_token_indices"),
    *("layer_replication", "alora_invocation_tokens", "use_bdlora", "kasa_config", "arrow_config"),
)


def library() -> Any:
    """PEFT, of which LoRA is."""
    import peft
    import peft.tuners.lora

    return peft


def check_library(args: ModelArgs) -> None:
    """Raises `Refused` where PEFT cannot be used."""
    try:
        library()
    except Exception as error:  # it imports whatever is there of the libraries that it goes with
        remedy = "`pip install 'peft>=0.19'`"
        raise Refused(f"{adapters_flag(args)}: peft cannot be imported ({error_text(error)}): {remedy}") from error


def given_config(args: ModelArgs) -> Any:
    """That of `--lora_path`; None where a run starts with new adapters."""
    if args.lora_path is None:
        return None
    check_place(_in_place(args), ADAPTER)
    path = _file(args, CONFIG)
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        if settings.get("peft_type") != "LORA":
            raise refusal(args, f"its peft_type is {settings.get('peft_type')}; give an adapter of LoRA")
        other = [name for name in OTHER if settings.get(name)]
        if other:
            raise refusal(args, f"its {other[0]} is not taken; give one of plain LoRA")
        if settings.get("bias", "none") != "none":
            raise refusal(args, f"it has trained biases (bias {settings['bias']}); give one without")
        begun = settings.get("init_lora_weights", True)
        if begun not in PLAIN:
            raise refusal(args, f"its init_lora_weights {begun} has changed the model's own weights; give plain LoRA")
        config: Any = library().LoraConfig.from_pretrained(str(path.parent))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise refusal(args, f"its {CONFIG} cannot be read ({error})") from error
    config.lora_dropout, config.inference_mode, config.init_lora_weights = 0.0, False, True
    return config


def begin_from(model: Any, args: ModelArgs, adapter: str) -> None:
    """Gives the adapter of that name the weights of `--lora_path`, or none where the model has no memory for any."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    named = {name: value for name, value in model.named_parameters() if f".{adapter}." in name}
    try:
        given = load_file(_file(args, WEIGHTS))
    except SafetensorError as error:
        raise refusal(args, f"its {WEIGHTS} cannot be read ({error})") from error
    wanted = {in_peft(name, adapter): value for name, value in named.items()}
    _check_names(args, given, wanted)
    for name, value in wanted.items():
        if not value.is_meta:
            value.data.copy_(given[name])


def _check_names(args: ModelArgs, given: Mapping[str, Tensor], known: Mapping[str, Tensor]) -> None:
    odd = sorted(given.keys() ^ known.keys())
    if odd:
        where = "in it alone" if odd[0] in given else "not in it"
        raise refusal(args, f"{odd[0]} is {where}; give an adapter of --pretrain {args.pretrain}")
    for name, value in known.items():
        if given[name].shape != value.shape:
            there, here = (" x ".join(map(str, shape)) for shape in (given[name].shape, value.shape))
            raise refusal(args, f"{name} is {there}, in --pretrain {args.pretrain} {here}")


def in_peft(name: str, adapter: str) -> str:
    """What PEFT's files call a tensor of the model's."""
    return f"{PREFIX}{name.replace(f'.{adapter}.', '.')}"


def adapter_files(args: ModelArgs) -> tuple[Path, Path]:
    """Configuration and weights of `--lora_path`."""
    return _file(args, CONFIG), _file(args, WEIGHTS)


def _file(args: ModelArgs, name: str) -> Path:
    try:
        found = find_file(_in_place(args), name)
    except OSError as error:
        raise refusal(args, f"its {name} cannot be fetched ({error_text(error, most=200)})") from error
    if found is None:
        raise refusal(args, f"it has no {name}; give the folder of a PEFT adapter")
    return found


def _in_place(args: ModelArgs) -> ModelArgs:
    """With `--lora_path` in the place of `--pretrain`."""
    assert args.lora_path is not None
    return replace(args, pretrain=args.lora_path)


def refusal(args: ModelArgs, what: str) -> Refused:
    return Refused(f"--lora_path {args.lora_path}: {what}")


def save_adapter(config: Any, tensors: Iterable[tuple[str, Tensor]], adapter: str, given: Given, path: Path) -> None:
    """Writes the adapter of that name to `path`, where it replaces an older model, beside it what reads and writes its
    tokens. tensors: by the model's names."""
    from safetensors.torch import save_file

    with replacing(path) as folder:
        state = {in_peft(name, adapter): value.detach().to("cpu").contiguous() for name, value in tensors}
        save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
        settings = {**config.to_dict(), "inference_mode": True}
        text = json.dumps({name: _plain(value) for name, value in settings.items()}, indent=2, sort_keys=True)
        (folder / CONFIG).write_text(text + "\n")
        write_files({name: content for name, content in given.files.items() if not _is_of_base(name)}, folder)


def base_of(args: ModelArgs) -> str:
    """What an adapter calls the model that it is of: a folder by its whole path."""
    folder = Path(place(args))
    return str(folder.absolute()) if folder.is_dir() else args.pretrain


def _is_of_base(name: str) -> bool:
    return name in OF_BASE or name.endswith(".py")


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, (set, frozenset)) else value
