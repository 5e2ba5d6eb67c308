"""Data in other people's formats, trained on by the real program; and what it says about the data that it is given."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest
from pyarrow import parquet
from runs import read_json, rows, train, weights

RUN = "--fsdp --eval_steps 5 --quiet"


def sums(name: str = "add.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(name).read_text().splitlines()]


def as_chat(row: dict[str, Any]) -> dict[str, Any]:
    return {"prompt": [{"role": "user", "content": [{"type": "text", "text": row["prompt"]}]}], "label": row["label"]}


def as_verl(row: dict[str, Any]) -> dict[str, Any]:
    chat = [{"role": "user", "content": row["prompt"]}]
    truth = {"style": "rule", "ground_truth": row["label"]}
    return {"data_source": "add", "prompt": chat, "reward_model": truth, "extra_info": {"index": 0}}


def write(name: str, rows: list[dict[str, Any]]) -> None:
    suffix = Path(name).suffix
    if suffix == ".json":
        Path(name).write_text(json.dumps({"version": 1, "data": rows}))
    elif suffix == ".csv":
        with open(name, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), name)
    elif suffix == ".jsonl":
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        datasets.DatasetDict({"train": datasets.Dataset.from_list(rows)}).save_to_disk(name)


@pytest.fixture
def plain(here: Path) -> Path:
    """Two steps on the sums as they are, in `.jsonl`."""
    assert train(f"{RUN} --max_steps 2 --save_path plain").code == 0
    return here / "plain"


def test_every_format_and_every_kind_of_row_is_the_same_training(here, plain):
    """Down to the bits: ids, prompts and references are the same, so samples, rewards and gradients are."""
    Path("other").mkdir()
    for name, shape in (
        ("other/add.csv", dict),
        ("other/add.json", as_chat),
        ("other/add.parquet", as_verl),
        ("other/add", as_verl),
    ):
        write(name, [shape(row) for row in sums()])
        save_path = f"run{Path(name).suffix or '.saved'}"
        ended = train(f"{RUN} --max_steps 2 --prompt_data {name} --save_path {save_path}")
        assert ended.code == 0, ended.err
        assert rows(here / save_path) == rows(plain)
        assert weights(here / save_path) == weights(plain)


def test_other_columns_and_a_template_are_the_same_training(here, plain):
    """The template puts back what was taken out of the rows. Ids are other ones, so greedy evaluation is compared."""
    changed = [{"q": row["prompt"].removesuffix("="), "label": "none", "a": row["label"]} for row in sums("eval.jsonl")]
    write("bare.jsonl", changed)
    keys = "--input_key q --reference_key a --input_template {prompt}="
    ended = train(
        f"--fsdp --quiet --max_steps 1 --prompt_data bare.jsonl --eval_data bare.jsonl {keys} --save_path run"
    )
    assert ended.code == 0, ended.err
    before = [read_json(here / run / "summary.json")["eval"]["before"] for run in ("run", "plain")]
    assert before[0] == before[1] and before[0]["n"] == 23


def test_shares_and_the_resumption_of_a_mixed_stream(here):
    """Twelve prompts and four in equal shares: an episode has four steps, in which each of the four comes twice."""
    write("many.jsonl", sums()[:12])
    write("few.jsonl", sums()[12:16])
    flags = f"{RUN} --prompt_data many.jsonl few.jsonl --prompt_data_probs 1 1 --reward_fn shaped.py:spy"
    for save_path in ("whole", "cut"):
        assert train(f"{flags} --max_steps 8 --save_steps 6 --save_interval 0 --save_path {save_path}").code == 0
    seen = [batch["prompts"][::4] for batch in sums("seen.jsonl") if len(batch["prompts"]) == 16][:4]
    episode = Counter(prompt for step in seen for prompt in step)
    assert [episode.pop(row["prompt"]) for row in sums("few.jsonl")] == [2] * 4
    assert sorted(episode.values()) == [1] * 8

    resumed = train(f"{flags} --max_steps 8 --save_steps 6 --save_interval 0 --save_path cut --load_checkpoint")
    assert resumed.code == 0 and "resumed from step 6" in resumed.out
    assert rows(here / "cut") == rows(here / "whole")
    assert weights(here / "cut") == weights(here / "whole")
    assert [row["episode"] for row in rows(here / "cut")] == [step / 4 for step in range(1, 9)]


def test_skipped_rows_and_the_first_prompt_are_told(here):
    write("mixed.jsonl", [{"prompt": "1+1=", "label": "2"}, {"prompt": 5}, {"prompt": "2+1=", "label": "3"}])
    refused = train("--fsdp --max_steps 1 --save_path run --prompt_data mixed.jsonl")
    assert refused.code == 2 and not Path("run").exists()
    assert refused.problems == [
        "error: --prompt_data mixed.jsonl:2: 'prompt' is of type int; a text or a list of chat messages works; "
        "--on_bad_row skip leaves it out"
    ]
    ended = train("--fsdp --max_steps 1 --save_path run --prompt_data mixed.jsonl --on_bad_row skip --dry_run")
    assert ended.code == 0, ended.err
    assert "skipped 1 of 3 rows of --prompt_data (first: mixed.jsonl:2: 'prompt' is of type int" in ended.out
    assert "first prompt mixed.jsonl:1, 4 tokens, reference '2': '1+1='" in ended.out
