"""Tokenizer and model from `--pretrain`, with one clear line when that cannot work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightrft.errors import Refused

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from lightrft.args.groups.model import ModelArgs


REMEDIES = {  # a word in the library's message: what helps
    "trust_remote_code": "add --trust_remote_code",
    "flash_attn": "install flash-attn, or use --attn_implementation sdpa",
    "FlashAttention": "install flash-attn, or use --attn_implementation sdpa",
}


def check_pretrain(args: ModelArgs) -> None:
    """Refuses a `--pretrain` that is a path and holds no model; hub names are left to the hub."""
    path = Path(args.pretrain).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise Refused(f"--pretrain {args.pretrain}: it has no config.json; give a Hugging Face model folder")
        return
    looks_like_path = args.pretrain.startswith((".", "/", "~")) or args.pretrain.count("/") > 1
    if path.exists() or looks_like_path or (len(path.parts) > 1 and Path(path.parts[0]).is_dir()):
        raise Refused(f"--pretrain {args.pretrain}: no such model folder; give a folder with config.json or a hub name")


def _place(args: ModelArgs) -> str:
    """A folder with `~` written out, or the hub name as it is."""
    path = Path(args.pretrain).expanduser()
    return str(path) if path.is_dir() else args.pretrain


def _hub_options(args: ModelArgs) -> dict[str, Any]:
    return {"trust_remote_code": args.trust_remote_code, "cache_dir": args.cache_dir}


def _refusal(args: ModelArgs, what: str, error: Exception) -> Refused:
    text = " ".join(str(error).split())
    remedy = next((flag for word, flag in REMEDIES.items() if word in text), "give a whole model folder or a hub name")
    reason = f"{type(error).__name__}: {text[:200]}"
    where = f" with --cache_dir {args.cache_dir}" if args.cache_dir else ""
    return Refused(f"--pretrain {args.pretrain}{where}: the {what} cannot be loaded ({reason}); {remedy}")


def load_tokenizer(args: ModelArgs) -> PreTrainedTokenizerBase:
    """The tokenizer of `--pretrain`; padding is never trained on, so a missing pad token borrows the end token."""
    from transformers import AutoTokenizer

    check_pretrain(args)
    if args.disable_fast_tokenizer:
        raise Refused(
            "--disable_fast_tokenizer can do nothing: transformers 5 has no second implementation of a tokenizer; "
            "remove it"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(_place(args), **_hub_options(args))
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise _refusal(args, "tokenizer", error) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def check_positions(args: ModelArgs) -> None:
    """Refuses sequences longer than the model has positions for; many models go past their range without a word."""
    from transformers import AutoConfig

    try:
        config: Any = AutoConfig.from_pretrained(_place(args), **_hub_options(args)).get_text_config()
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise _refusal(args, "configuration", error) from error
    positions = getattr(config, "max_position_embeddings", None)
    longest = args.prompt_max_len + args.max_new_tokens
    if positions and longest > positions:
        lengths = f"--prompt_max_len {args.prompt_max_len} + --max_new_tokens {args.max_new_tokens} = {longest}"
        raise Refused(f"{lengths}, but --pretrain {args.pretrain} has {positions} positions; shorten one of them")


def count_parameters(args: ModelArgs) -> int:
    """Of the model that `--pretrain`'s configuration describes, tied ones once; no weights are read."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(_place(args), **_hub_options(args))
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config, trust_remote_code=args.trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise _refusal(args, "configuration", error) from error
    return sum(parameter.numel() for parameter in model.parameters())


def load_model(args: ModelArgs, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """The causal language model of `--pretrain` in `dtype` on `device`, from safetensors, with dropout off.

    Dropout stays off while training: the policy that is trained must be the policy that sampled.
    """
    from transformers import AutoModelForCausalLM

    return _load(AutoModelForCausalLM, args, dtype).to(device).eval()


def load_backbone(args: ModelArgs, dtype: torch.dtype) -> PreTrainedModel:
    """The same without a head; what the folder has beside it is left there."""
    from transformers import AutoModel
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # else it lists the heads that are left; what is missing is refused below
    try:
        return _load(AutoModel, args, dtype)
    finally:
        logging.set_verbosity(verbosity)


def _load(kind: Any, args: ModelArgs, dtype: torch.dtype) -> Any:
    from safetensors import SafetensorError
    from transformers.utils import logging

    logging.disable_progress_bar()  # of loading and saving weights: seconds, and the console has its own line
    options = _hub_options(args)
    if args.attn_implementation is not None:
        options["attn_implementation"] = args.attn_implementation
    try:
        model, loaded = kind.from_pretrained(
            _place(args), dtype=dtype, use_safetensors=True, output_loading_info=True, **options
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise _refusal(args, "model", error) from error
    if loaded["missing_keys"]:  # the library would make them up at random
        names = f"{len(loaded['missing_keys'])} weights are missing, such as {min(loaded['missing_keys'])}"
        raise Refused(f"--pretrain {args.pretrain}: {names}; give a whole causal language model")
    return model


def weight_file(args: ModelArgs, name: str) -> str | None:
    """A file of the model, from its folder or the hub; None where it has no such file."""
    from transformers.utils.hub import cached_file

    missing_is_none = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    return cached_file(_place(args), name, cache_dir=args.cache_dir, **missing_is_none)


def end_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Token ids at which a response ends: the generation config's, and the tokenizer's."""
    listed: Any = model.generation_config.eos_token_id if model.generation_config is not None else None
    own: Any = tokenizer.eos_token_id
    found = [*(listed if isinstance(listed, (list, tuple)) else [listed]), own]
    return frozenset(int(token) for token in found if token is not None)
