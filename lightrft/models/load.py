"""The model of `--pretrain`, with one clear line when that cannot work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightrft.errors import Refused
from lightrft.models.source import code_options, place, refusal
from lightrft.models.suitable import read_config

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from lightrft.args.groups.model import ModelArgs


def count_parameters(args: ModelArgs) -> int:
    """Of the model that `--pretrain`'s configuration describes, tied ones once; no weights are read."""
    import torch
    from transformers import AutoModelForCausalLM

    config = read_config(args)
    try:
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config, trust_remote_code=args.trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise refusal(args, "configuration", error) from error
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
    options = code_options(args)
    if args.attn_implementation is not None:
        options["attn_implementation"] = args.attn_implementation
    try:
        model, loaded = kind.from_pretrained(
            place(args), dtype=dtype, use_safetensors=True, output_loading_info=True, **options
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise refusal(args, "model", error) from error
    if loaded["missing_keys"]:  # the library would make them up at random
        names = f"{len(loaded['missing_keys'])} weights are missing, such as {min(loaded['missing_keys'])}"
        raise Refused(f"--pretrain {args.pretrain}: {names}; give a whole causal language model")
    return model
