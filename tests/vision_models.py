"""Tiny models that see, of each family, made offline: random weights, byte tokens, the families' own processors."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from lightrft.args.groups.model import ModelArgs

TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
TEMPLATE = (
    "{%% for message in messages %%}<|im_start|>{{ message.role }}\n"
    "{%% if message.content is string %%}{{ message.content }}{%% else %%}{%% for part in message.content %%}"
    "{%% if part.type == 'image' %%}%s{%% elif part.type == 'video' %%}%s{%% else %%}{{ part.text }}{%% endif %%}"
    "{%% endfor %%}{%% endif %%}<|im_end|>\n{%% endfor %%}"
    "{%% if add_generation_prompt %%}<|im_start|>assistant\n{%% endif %%}"
)
QWEN = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
MARK = "<|vision_start|><|image_pad|><|vision_end|>", "<|vision_start|><|video_pad|><|vision_end|>"


def words(scale: int, **more: Any) -> dict[str, Any]:
    """Of the text part. Its heads have 8 dimensions times `scale`."""
    sizes = {"hidden_size": 32 * scale, "intermediate_size": 64 * scale, "max_position_embeddings": 512}
    return {**sizes, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, **more}


def tokenizer(*special: str, mark: tuple[str, str] = ("<image>", "<video>"), **named: str) -> Any:
    """Bytes, the tokens of a chat, and `special`; its template writes `mark` for an image and for a video."""
    letters = {letter: id for id, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(models.BPE(vocab=letters, merges=[]))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    found = hf.PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|endoftext|>", extra_special_tokens=named
    )
    found.add_special_tokens({"additional_special_tokens": ["<|im_start|>", *special]})
    found.chat_template = TEMPLATE % mark
    return found


def images(family: str, name: str, **options: Any) -> Any:
    """The image processor that needs Pillow alone."""
    module = importlib.import_module(f"transformers.models.{family}.image_processing_pil_{family}")
    return getattr(module, f"{name}ImageProcessorPil")(**options)


def qwen(kind: str, scale: int, patch: int = 14, video: Any = None, **parts: Any) -> tuple[Any, Any]:
    text = tokenizer(*QWEN, mark=MARK)
    ids = dict(zip(IDS, text.convert_tokens_to_ids(list(QWEN)), strict=True))
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [scale * n for n in parts.pop("sections")]}
    wording = words(scale, vocab_size=len(text), rope_parameters={**rope, **parts.pop("rope", {})})
    config = getattr(hf, f"{kind}Config")(
        text_config=wording | parts.pop("text", {}), vision_config={"patch_size": patch, **parts}, **ids
    )
    least = (2 * patch) ** 2
    pictures = images("qwen2_vl", "Qwen2VL", min_pixels=least, max_pixels=16 * least, patch_size=patch)
    made = getattr(hf, f"{kind}Processor")(
        image_processor=pictures, tokenizer=text, video_processor=video or hf.Qwen2VLVideoProcessor()
    )
    return config, made


IDS = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")


def qwen2_vl(scale: int) -> tuple[Any, Any]:
    sizes = {"depth": 2, "embed_dim": 32, "num_heads": 2, "hidden_size": 32 * scale, "mlp_ratio": 2, "in_chans": 3}
    return qwen("Qwen2VL", scale, sections=[1, 1, 2], **sizes)


def qwen2_5_vl(scale: int) -> tuple[Any, Any]:
    sizes = {"depth": 2, "hidden_size": 32, "num_heads": 2, "out_hidden_size": 32 * scale, "intermediate_size": 64}
    more = {"window_size": 56, "fullatt_block_indexes": [1], "in_chans": 3}
    return qwen("Qwen2_5_VL", scale, sections=[1, 1, 2], **more, **sizes)


def qwen3_vl(scale: int) -> tuple[Any, Any]:
    sizes = {"depth": 2, "hidden_size": 32, "num_heads": 2, "out_hidden_size": 32 * scale, "intermediate_size": 64}
    more = {"num_position_embeddings": 64, "deepstack_visual_indexes": [0], "text": {"head_dim": 8 * scale}}
    rope = {"mrope_interleaved": True}
    return qwen("Qwen3VL", scale, 16, hf.Qwen3VLVideoProcessor(), sections=[2, 1, 1], rope=rope, **sizes, **more)


def llava(scale: int) -> tuple[Any, Any]:
    text = tokenizer("<image>")
    config = hf.LlavaConfig(
        text_config=words(scale, model_type="llama", vocab_size=len(text)),
        vision_config={"model_type": "clip_vision_model", **TOWER, "num_hidden_layers": 2, "image_size": 28}
        | {"patch_size": 14, "projection_dim": 32},
        image_token_index=text.convert_tokens_to_ids("<image>"),
        image_seq_length=4,
    )
    pictures = images("clip", "CLIP", size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    made = hf.LlavaProcessor(
        image_processor=pictures,
        tokenizer=text,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return config, made


def idefics3(scale: int) -> tuple[Any, Any]:
    grid = [f"<row_{row}_col_{column}>" for row in range(1, 4) for column in range(1, 4)]
    text = tokenizer("<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>", *grid)
    config = hf.Idefics3Config(
        text_config=words(scale, model_type="llama", vocab_size=len(text), pad_token_id=0),
        vision_config={**TOWER, "num_hidden_layers": 2, "image_size": 32, "patch_size": 8},
        image_token_id=text.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=0,
    )
    pictures = images("idefics3", "Idefics3", size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    return config, hf.Idefics3Processor(image_processor=pictures, tokenizer=text, image_seq_len=4)


def gemma3(scale: int) -> tuple[Any, Any]:
    named = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    text = tokenizer(mark=("<start_of_image>", ""), **named)
    text.add_tokens(["\n" * count for count in range(1, 5)])  # as its own has them
    config = hf.Gemma3Config(
        text_config=words(scale, head_dim=8 * scale, vocab_size=len(text), sliding_window=16, pad_token_id=0)
        | {"layer_types": ["sliding_attention", "full_attention"]},
        vision_config={**TOWER, "num_hidden_layers": 2, "image_size": 32, "patch_size": 8, "vision_use_head": False},
        mm_tokens_per_image=4,
        image_token_index=text.image_token_id,
        boi_token_index=text.boi_token_id,
        eoi_token_index=text.eoi_token_id,
    )
    pictures = images("gemma3", "Gemma3", size={"height": 32, "width": 32})
    return config, hf.Gemma3Processor(image_processor=pictures, tokenizer=text, image_seq_length=4)


FAMILIES: dict[str, Callable[[int], tuple[Any, Any]]] = {
    "qwen2_vl": qwen2_vl,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
    "llava": llava,
    "idefics3": idefics3,
    "gemma3": gemma3,
}


def save_tiny(family: str, folder: Path, scale: int = 1) -> Path:
    """A model folder as `--pretrain` takes it. scale 4: with heads as large as vLLM has them at least."""
    config, processor = FAMILIES[family](scale)
    config.get_text_config().bos_token_id, config.get_text_config().eos_token_id = (
        None,
        processor.tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    model = hf.AutoModelForImageTextToText.from_config(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15) if parameter.dim() > 1 else None
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def model_args(folder: Path, **changes: Any) -> ModelArgs:
    """Of the defaults."""
    defaults = {entry.name: entry.default for entry in fields(ModelArgs) if entry.default is not MISSING}
    return ModelArgs(**{**defaults, "pretrain": str(folder), "max_new_tokens": 8, "prompt_max_len": 400, **changes})


def save_questions(source: Path, folder: Path, count: int) -> None:
    """seen.jsonl: the first rows of `source`, each with a picture in its own grey; half_seen.jsonl: each second."""
    rows = [json.loads(line) for line in source.read_text().splitlines()[:count]]
    for number in range(len(rows)):
        Image.new("L", (40, 30 + 10 * (number % 4)), 20 * number % 256).save(folder / f"{number}.png")
    seen = [{**row, "images": [f"{number}.png"]} for number, row in enumerate(rows)]
    half_seen = [seen[number] if number % 2 else row for number, row in enumerate(rows)]
    for name, written in {"seen": seen, "half_seen": half_seen}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in written))
