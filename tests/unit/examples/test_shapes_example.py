"""The images and questions of examples/tiny_shapes.py, and the model that it makes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

sys.path.insert(0, str(Path(__file__).parents[3] / "examples"))
from tiny_shapes import GRID, KINDS, PLACE, make_model, make_processor, questions, warm_start, write_data  # noqa: E402

sys.path.pop(0)


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def drawn_places(image):
    """Places of the grid that are not white."""
    places = np.array(image).reshape(GRID, PLACE, GRID, PLACE, 3)
    return int((places.min((1, 3, 4)) < 200).sum())


def test_a_question_is_answered_by_its_image():
    rows = questions(200, seed=3)
    assert {row.kind for row in rows} == set(KINDS) and {row.count for row in rows} == set(range(6))
    assert all(max(row.count, 2) <= drawn_places(row.image) <= 8 for row in rows)
    assert [row.text for row in rows] == [row.text for row in questions(200, seed=3)]


def test_the_control_has_the_same_questions_beside_others_images(tmp_path):
    write_data(tmp_path, train=40, held_out=5)
    true, shuffled = read(tmp_path / "train.jsonl"), read(tmp_path / "shuffled.jsonl")
    without = [[{**row, "images": []} for row in rows] for rows in (true, shuffled)]
    assert without[0] == without[1] and true[7]["prompt"].startswith("<image>How many ")
    images = [[row["images"][0] for row in rows] for rows in (true, shuffled)]
    assert sorted(images[0]) == sorted(images[1]) and sum(map(str.__eq__, *images)) < 5
    assert all((tmp_path / name).is_file() for name in images[0]) and len(read(tmp_path / "eval.jsonl")) == 5


def test_the_saved_model_answers_as_the_made_one(tmp_path):
    processor, model = make_processor(), make_model(seed=0)
    assert warm_start(model, processor, until=0.1, seed=0) > 1
    processor.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    row, loaded = questions(1, seed=0)[0], AutoProcessor.from_pretrained(tmp_path)
    asked = loaded(images=[row.image], text=[row.text], return_tensors="pt")
    assert asked["input_ids"].shape == (1, GRID * GRID + 4)
    assert processor.tokenizer.unk_token_id not in asked["input_ids"]
    with torch.no_grad():
        again = AutoModelForImageTextToText.from_pretrained(tmp_path)(**asked).logits
        assert torch.equal(again, model(**asked).logits)
    assert (
        loaded.tokenizer.decode(loaded.tokenizer.convert_tokens_to_ids(["3", "<eos>"]), skip_special_tokens=True) == "3"
    )
