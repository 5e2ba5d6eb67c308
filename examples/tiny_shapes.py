"""A model that sees and learns to count shapes, made from nothing in seconds, for trials and tests without a download.

    python examples/tiny_shapes.py --out outputs/tiny_shapes

writes `model/` (a LLaVA of 0.14 M parameters with its processor, warmed up by supervised steps until about half of its
answers are right), images of 4 x 4 places with up to eight shapes, and `train.jsonl`, `eval.jsonl` with rows
`{"prompt": "<image>How many circles?", "images": ["images/train_0007.png"], "label": "3"}`. In `shuffled.jsonl` the
questions of `train.jsonl` stand beside each other's images: who learns from these does not look.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPImageProcessorPil,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

KINDS = ("circle", "square", "triangle")
COLOURS = ((220, 60, 60), (60, 160, 60), (70, 90, 220))
GRID, PLACE = 4, 8  # places in a row, and pixels of one: the patch that the model sees as one
SIDE = GRID * PLACE
FINER = 4  # drawn so much larger, for smooth edges
MOST = 5  # of the kind that is asked for
WORDS = ("How", " many", *(f" {kind}s" for kind in KINDS), "?", *map(str, range(10)))
SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>", "<image>")
WARM_IMAGES = 4000
INITIAL_STD = 0.12  # at the usual 0.02 so small a model takes ten times as long to begin


@dataclass(frozen=True)
class Question:
    image: Image.Image
    kind: str
    count: int

    @property
    def text(self) -> str:
        return f"<image>How many {self.kind}s?"


def questions(count: int, seed: int) -> list[Question]:
    draw = random.Random(seed)
    return [_question(draw) for _ in range(count)]


def _question(draw: random.Random) -> Question:
    asked, count = draw.choice(KINDS), draw.randint(0, MOST)
    others = [kind for kind in KINDS if kind != asked]
    kinds = [asked] * count + [draw.choice(others) for _ in range(draw.randint(max(count, 2), 8) - count)]
    return Question(_picture(kinds, draw), asked, count)


def _picture(kinds: Sequence[str], draw: random.Random) -> Image.Image:
    image = Image.new("RGB", (SIDE * FINER, SIDE * FINER), "white")
    pen = ImageDraw.Draw(image)
    for kind, place in zip(kinds, draw.sample(range(GRID * GRID), len(kinds)), strict=True):
        size, colour = draw.choice((6, 7)) * FINER, draw.choice(COLOURS)
        left, top = (number * PLACE * FINER + (PLACE * FINER - size) // 2 for number in (place % GRID, place // GRID))
        box = (left, top, left + size, top + size)
        if kind == "circle":
            pen.ellipse(box, fill=colour)
        elif kind == "square":
            pen.rectangle(box, fill=colour)
        else:
            pen.polygon([(left, top + size), (left + size, top + size), (left + size // 2, top)], fill=colour)
    return image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def make_processor() -> LlavaProcessor:
    """One token a word (with the space before it), a digit and a place of the image; no chat template."""
    vocabulary = {token: i for i, token in enumerate([*SPECIALS, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r" ?\w+|\W"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"
    )
    fast.add_special_tokens({"additional_special_tokens": ["<image>"]})
    size, grey = {"height": SIDE, "width": SIDE}, [0.5] * 3
    pictures = CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size=size, image_mean=grey, image_std=grey, do_convert_rgb=True
    )
    return LlavaProcessor(
        image_processor=pictures,
        tokenizer=fast,
        patch_size=PLACE,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


def make_model(seed: int, hidden_size: int = 64) -> LlavaForConditionalGeneration:
    """A LLaVA with random weights and heads of 32, the least that vLLM runs."""
    vocabulary = {token: i for i, token in enumerate([*SPECIALS, *WORDS])}
    sizes = {"hidden_size": hidden_size, "intermediate_size": 2 * hidden_size, "num_attention_heads": hidden_size // 32}
    special = {f"{name}_token_id": vocabulary[f"<{name}>"] for name in ("pad", "bos", "eos")}
    config = LlavaConfig(
        text_config={
            **{"model_type": "llama", **sizes, **special, "vocab_size": len(vocabulary)},
            **{"num_hidden_layers": 2, "num_key_value_heads": hidden_size // 32, "max_position_embeddings": 512},
        },
        vision_config={
            **{"model_type": "clip_vision_model", **sizes, "projection_dim": hidden_size},
            **{"num_hidden_layers": 1, "image_size": SIDE, "patch_size": PLACE},
        },
        image_token_index=vocabulary["<image>"],
        image_seq_length=GRID * GRID,
        vision_feature_layer=-1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=INITIAL_STD)
    return model


def warm_start(model, processor, until: float, seed: int, batch_size: int = 32, learning_rate: float = 1e-3) -> int:
    """Supervised steps until the probability of the right answer, over the last twenty or so, is `until`; how many."""
    draw, rows, sure, steps = random.Random(seed), questions(WARM_IMAGES, seed=seed + 1), 0.0, 0
    batch = processor(images=[row.image for row in rows], text=[row.text for row in rows], return_tensors="pt")
    ids, pixels = batch["input_ids"], batch["pixel_values"]
    digits, end = (processor.tokenizer.convert_tokens_to_ids(list(map(str, range(MOST + 1)))), model_end(model))
    answers = torch.tensor([[digits[row.count], end] for row in rows])
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    model.train()
    while sure < until:
        chosen = torch.tensor(draw.choices(range(len(rows)), k=batch_size))
        input_ids = torch.cat([ids[chosen], answers[chosen]], dim=1)
        logits = model(input_ids=input_ids, pixel_values=pixels[chosen]).logits[:, -3:-1]
        logprobs = logits.log_softmax(-1).gather(-1, answers[chosen][..., None])[..., 0]
        optimizer.zero_grad()
        (-logprobs.mean()).backward()
        optimizer.step()
        sure, steps = 0.95 * sure + 0.05 * logprobs[:, 0].detach().exp().mean().item(), steps + 1
    model.eval()
    return steps


def model_end(model) -> int:
    return model.config.text_config.eos_token_id


def write_data(folder: Path, train: int, held_out: int, seed: int = 0) -> None:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    made = {"train": questions(train, seed=seed - 1), "eval": questions(held_out, seed=seed - 2)}
    for name, rows in made.items():
        for number, row in enumerate(rows):
            row.image.save(folder / f"images/{name}_{number:04d}.png")
        _write_rows(folder / f"{name}.jsonl", _rows(name, rows, range(len(rows))))
    others = random.Random(seed).sample(range(train), train)
    _write_rows(folder / "shuffled.jsonl", _rows("train", made["train"], others))


def _rows(name: str, rows: Sequence[Question], images: Sequence[int]) -> Iterator[dict]:
    for row, image in zip(rows, images, strict=True):
        yield {"prompt": row.text, "images": [f"images/{name}_{image:04d}.png"], "label": str(row.count)}


def _write_rows(path: Path, rows: Iterator[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the tiny model that sees, and its questions about shapes.")
    parser.add_argument("--out", type=Path, required=True, help="folder for model/, images/ and the rows")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--train", type=int, default=2000, help="rows to train on")
    parser.add_argument("--held_out", type=int, default=200, help="rows to evaluate on")
    parser.add_argument("--warm_until", type=float, default=0.45, help="the probability of right answers to start with")
    args = parser.parse_args()
    logging.disable_progress_bar()
    processor, model = make_processor(), make_model(args.seed)
    steps = warm_start(model, processor, args.warm_until, args.seed)
    write_data(args.out, args.train, args.held_out, args.seed)
    model.save_pretrained(args.out / "model")
    processor.save_pretrained(args.out / "model")
    print(f"{args.out}: {model.num_parameters() / 1e6:.2f} M parameters, {steps} supervised steps")


if __name__ == "__main__":
    main()
