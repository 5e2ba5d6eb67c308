"""A model that learns one-digit addition from nothing in seconds, for trials and tests without any download.

    python examples/tiny_addition.py --out outputs/tiny_addition

writes `model/` (a Qwen2 of 0.4 M parameters with a character tokenizer, warmed up by a few supervised steps so that
some samples are right), `train.jsonl` and `eval.jsonl` (rows `{"prompt": "3+5=", "label": "8"}`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from transformers.utils import logging

CHARACTERS = "0123456789+="
PAIRS_HELD_OUT = 0.45  # of the 45 pairs of different digits, one order each


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token a character; no chat template, and no special token is added to a prompt."""
    specials = ["<pad>", "<bos>", "<eos>", "<unk>"]
    vocabulary = {token: i for i, token in enumerate([*specials, *CHARACTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("[\\s\\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"
    )


def make_model(seed: int, hidden_size: int = 128, layers: int = 2) -> Qwen2ForCausalLM:
    """A Qwen2 with random weights and heads of 32, the least that vLLM runs."""
    if hidden_size % 32:
        raise ValueError(f"hidden_size {hidden_size} is not a multiple of the head size 32")
    tokenizer = make_tokenizer()
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=11 * hidden_size // 4,
        num_hidden_layers=layers,
        num_attention_heads=hidden_size // 32,
        num_key_value_heads=hidden_size // 32,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(config)


def split_questions() -> tuple[list[dict], list[dict]]:
    """(train, held out): all 100 sums; of some pairs, chosen by hash, one order is held out and the mirror trained.

    Holding out both orders would ask for a sum the model can know nothing about, which no model of this size guesses.
    """
    train, held_out = [], []
    for a in range(10):
        for b in range(10):
            digest = hashlib.sha256(f"{min(a, b)}+{max(a, b)}".encode()).digest()
            chosen, first_is_larger = digest[0] < 256 * PAIRS_HELD_OUT, digest[1] % 2 == 1
            side = held_out if chosen and a != b and (a > b) == first_is_larger else train
            side.append({"prompt": f"{a}+{b}=", "label": str(a + b)})
    return train, held_out


def write_data(folder: str | Path) -> tuple[Path, Path]:
    """Writes train.jsonl and eval.jsonl; returns their paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "train.jsonl", folder / "eval.jsonl"
    for path, rows in zip(paths, split_questions(), strict=True):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return paths


def warm_start(model, tokenizer, steps: int, seed: int, batch_size: int = 32, learning_rate: float = 1e-3) -> float:
    """Supervised steps on the training questions, loss on the answer and its end only; returns the last loss."""
    rows, _ = split_questions()
    draw = random.Random(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    loss = torch.tensor(float("nan"))
    model.train()
    for _ in range(steps):
        input_ids, labels = _encode(draw.choices(rows, k=batch_size), tokenizer)
        loss = model(input_ids=input_ids, attention_mask=(input_ids != tokenizer.pad_token_id).long(), labels=labels)
        loss = loss.loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    return loss.item()


def _encode(rows: list[dict], tokenizer) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded input_ids and labels [B, T]; a label of -100 carries no loss."""
    prompts = [tokenizer(row["prompt"]).input_ids for row in rows]
    answers = [[*tokenizer(row["label"]).input_ids, tokenizer.eos_token_id] for row in rows]
    length = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    input_ids = torch.full((len(rows), length), tokenizer.pad_token_id)
    labels = torch.full((len(rows), length), -100)
    for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        input_ids[i, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        labels[i, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)
    return input_ids, labels


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the tiny model and its one-digit additions.")
    parser.add_argument("--out", type=Path, required=True, help="folder for model/, train.jsonl, eval.jsonl")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--warm_steps", type=int, default=80, help="supervised steps before the model is saved")
    args = parser.parse_args()
    logging.disable_progress_bar()
    tokenizer, model = make_tokenizer(), make_model(args.seed)
    loss = warm_start(model, tokenizer, args.warm_steps, args.seed)
    write_data(args.out)
    model.save_pretrained(args.out / "model")
    tokenizer.save_pretrained(args.out / "model")
    size = model.num_parameters() / 1e6
    print(f"{args.out}: {size:.2f} M parameters, {args.warm_steps} supervised steps, last loss {loss:.3f}")


if __name__ == "__main__":
    main()
