"""Whether the model of `--pretrain` can be trained here, as far as its configuration and its files say."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightrft.errors import Refused
from lightrft.models.given import INDEX, weight_names
from lightrft.models.source import code_options, find_file, place, read_settings, refusal
from lightrft.models.vision import sees

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lightrft.args.groups.model import ModelArgs
    from lightrft.types import Prompt

OTHER_HEADS = re.compile(
    "(MaskedLM|Classification|QuestionAnswering|MultipleChoice|Prediction|PreTraining|Reward.*|Embedding.*|Retrieval)$"
)
LFS = b"version https://git-lfs"
GENERATION = "generation_config.json"
ALWAYS_CAUSAL = ("gpt_neox", "gpt_neox_japanese")  # whatever their is_decoder says; other types have it for a reason
CONVERT = (
    'write safetensors beside them once: python -c "from transformers import AutoModelForCausalLM as M; '
    "M.from_pretrained('{0}').save_pretrained('{0}')\""
)
OTHER_WEIGHTS = {  # files in another format: what would work
    "pytorch_model*.bin": "its weights are in pytorch_model.bin, which could run code when it is read; " + CONVERT,
    "*.gguf": "its weights are in GGUF; give the model's folder of safetensors",
    "model-*-of-*.safetensors": f"it lacks {INDEX}; give the whole folder",
    "tf_model.h5": "its weights are TensorFlow's; give the model's folder of safetensors",
    "flax_model.msgpack": "its weights are Flax's; give the model's folder of safetensors",
}


def read_config(args: ModelArgs) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(place(args), **code_options(args))
    except Exception as error:  # a configuration can be wrong in any way
        raise refusal(args, "configuration", error) from error


def vocabulary(config: Any) -> int:
    """Rows of the embedding: token ids lie below."""
    return config.get_text_config().vocab_size


def check_model(args: ModelArgs, *, backbone: bool = False) -> None:
    """Refuses a model that is not causal, cannot be trained, or has too few positions for the lengths asked for.

    backbone: the head does not matter.
    """
    config = read_config(args)
    fault = _fault_of_dtype(config) or (None if backbone else _fault_of_kind(config)) or _fault_of_files(args)
    if fault is not None:
        raise Refused(f"--pretrain {args.pretrain}: {fault}")
    _check_positions(args, config)


def _fault_of_dtype(config: Any) -> str | None:
    quantised: Any = getattr(config, "quantization_config", None)
    if quantised:
        method = quantised.get("quant_method") if isinstance(quantised, dict) else type(quantised).__name__
        return f"its weights are quantised ({method}); give the model in bf16 or float32"
    return None


def _fault_of_kind(config: Any) -> str | None:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    remedy = "give a causal language model"
    if "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {}):
        return None
    if getattr(config, "is_encoder_decoder", False):
        return f"it is an encoder-decoder ({config.model_type}); {remedy}"
    if sees(config):
        return None
    if any(hasattr(config, part) for part in ("vision_config", "audio_config")):
        return f"it is a {config.model_type}, which reads more than images and texts; give one that reads these"
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return f"transformers has no causal language model of its type {config.model_type}; {remedy}"
    name = next(iter(config.architectures or []), "")
    if OTHER_HEADS.search(name):
        return f"it is a {name}; {remedy}"
    if getattr(config, "is_decoder", None) is False and config.model_type not in ALWAYS_CAUSAL:
        return f"it reads both ways (is_decoder is false in its config.json); {remedy}"
    return None


def _fault_of_files(args: ModelArgs) -> str | None:
    """Only a folder is looked at: of a hub's model the files show when they are fetched."""
    folder = Path(place(args))
    if not folder.is_dir():
        return None
    if (folder / "model.safetensors").is_file():
        return _fault_of_file(folder / "model.safetensors")
    if listed := weight_names(args):
        missing = [name for name in listed if not (folder / name).is_file()]
        if missing:
            return f"{len(missing)} of its weight files are missing, such as {missing[0]}"
        return next((fault for name in listed if (fault := _fault_of_file(folder / name))), None)
    remedy = next((text for pattern, text in OTHER_WEIGHTS.items() if any(folder.glob(pattern))), None)
    return remedy.format(folder) if remedy else "it has no weights (model.safetensors); give a whole model folder"


def _fault_of_file(path: Path) -> str | None:
    """Its beginning says how long it is; the numbers are not read."""
    from safetensors import SafetensorError, safe_open

    with path.open("rb") as file:
        is_pointer = file.read(len(LFS)) == LFS
    if is_pointer:
        return f"its {path.name} only names the weights, which Git LFS keeps; `git lfs pull` in the folder fetches them"
    try:
        with safe_open(path, "pt"):
            return None
    except SafetensorError as error:
        return f"its {path.name} cannot be read ({error}); fetch it again, it is cut off or is another format"


def _check_positions(args: ModelArgs, config: Any) -> None:
    """Many models compute beyond their positions, wrongly and without an error."""
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    longest = args.prompt_max_len + args.max_new_tokens
    if positions and longest > positions:
        lengths = f"--prompt_max_len {args.prompt_max_len} + --max_new_tokens {args.max_new_tokens} = {longest}"
        raise Refused(f"{lengths}, but --pretrain {args.pretrain} has {positions} positions; shorten one of them")


def check_tokens(args: ModelArgs, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt]) -> None:
    """Refuses a prompt with a token that the model has no embedding of; tokens that no prompt needs may lie beyond."""
    size = vocabulary(read_config(args))
    for prompt in prompts:
        token = max(prompt.token_ids, default=0)
        if token >= size:
            name = tokenizer.convert_ids_to_tokens(token)
            raise Refused(
                f"--pretrain {args.pretrain}: its tokenizer has {len(tokenizer)} tokens, its model {size}, and "
                f"{prompt.where or prompt.id} needs token {token} ({name!r}); give a tokenizer and a model that belong "
                "together"
            )


def end_token_ids(args: ModelArgs, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Token ids at which a response ends: the generation config's, or the model's without one, and the tokenizer's."""
    config, generation = read_config(args), read_settings(args, GENERATION)
    own = config.get_text_config().eos_token_id
    eos: Any = tokenizer.eos_token_id
    listed = generation.get("eos_token_id") if find_file(args, GENERATION) else own
    if not all(isinstance(token, int) for token in _as_list(listed)):
        raise Refused(f"--pretrain {args.pretrain}: eos_token_id {listed!r} in its {GENERATION} is no token id")
    ends = {*_as_list(listed), *_as_list(eos)} or {*_as_list(own)}
    return frozenset(token for token in ends if token < vocabulary(config))


def _as_list(ids: int | list[int] | None) -> list[int]:
    return [] if ids is None else [ids] if isinstance(ids, int) else ids


def dead_ends(args: ModelArgs, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str], templated: bool) -> list[str]:
    """Why responses may not end where they should, one sentence each."""
    ends = end_token_ids(args, tokenizer)
    ordinary = _ordinary_ends(args, tokenizer, ends)
    if not ends and not stop:
        return [
            f"--pretrain {args.pretrain}: neither its tokenizer nor its configuration names an end token that the "
            f"model has, so every response is --max_new_tokens {args.max_new_tokens} long; --stop ends one at a text"
        ]
    turn, ids = _end_of_turn(tokenizer) if templated else None, tokenizer.get_vocab()
    if turn is None or turn in stop or ids[turn] in ends:
        return ordinary
    return [
        *ordinary,
        f"--pretrain {args.pretrain}: its chat template ends a turn with {turn!r}, which is no end token here, so a "
        f"response goes on behind it; --stop {turn!r} ends it there, or name it in generation_config.json",
    ]


def _ordinary_ends(args: ModelArgs, tokenizer: PreTrainedTokenizerBase, ends: frozenset[int]) -> list[str]:
    """End tokens that occur in texts: most likely they are the ids of another tokenizer."""
    special = {*tokenizer.added_tokens_decoder, *tokenizer.all_special_ids}
    ids = [token for token in sorted(ends - special) if token < len(tokenizer)]
    names: Any = tokenizer.convert_ids_to_tokens(ids)
    return [
        f"--pretrain {args.pretrain}: responses end at the ordinary token {name!r}, since its configuration has "
        f"eos_token_id {token}; name the model's end token in generation_config.json"
        for token, name in zip(ids, names, strict=True)
    ]


def _end_of_turn(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The special token that the chat template writes behind an answer."""
    answer = "an answer"
    try:
        chat = [{"role": "user", "content": "a question"}, {"role": "assistant", "content": answer}]
        text: Any = tokenizer.apply_chat_template(chat, tokenize=False)
    except Exception:  # templates raise what their authors chose
        return None
    behind = text.rpartition(answer)[2].lstrip()
    special = sorted((str(token) for token in tokenizer.added_tokens_decoder.values()), key=len, reverse=True)
    return next((token for token in special if behind.startswith(token)), None)
