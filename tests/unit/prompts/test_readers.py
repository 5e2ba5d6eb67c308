"""Every format gives the same prompts from the same rows, and says where a bad one stands."""

import csv
import json
import sys

import numpy as np
import pandas
import pyarrow
import pytest
from pyarrow import parquet

from lightrft.args.groups.data import DataArgs
from lightrft.errors import Refused
from lightrft.prompts.bad_rows import BadRow
from lightrft.prompts.dataset import load_prompts
from lightrft.prompts.readers import READERS

DATA = DataArgs(prompt_data=())
ROWS = [
    {"prompt": 'one "two", three', "label": "5", "note": "a\nb"},
    {"prompt": "zwei\u2028Zeilen ✓", "label": "6", "note": "x"},
    {"prompt": " four ", "label": "7", "note": None},
]


def save(path, rows):
    if path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1))
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return str(path)


def read(path):
    return list(READERS[path.suffix](str(path), f"--prompt_data {path}"))


def text_file(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path):
    with pytest.raises(Refused) as caught:
        load_prompts([str(path)], "train", DATA)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"--prompt_data {path}")
    return str(caught.value).removeprefix(f"--prompt_data {path}")


@pytest.mark.parametrize("suffix", READERS)
def test_the_same_rows_give_the_same_prompts(tmp_path, suffix):
    prompts = load_prompts([save(tmp_path / f"data{suffix}", ROWS)], "train", DATA)
    assert [prompt.messages[0]["content"] for prompt in prompts] == [row["prompt"] for row in ROWS]
    assert [prompt.reference for prompt in prompts] == ["5", "6", "7"]
    assert [prompt.columns["note"] for prompt in prompts] == ["a\nb", "x", None]
    assert {prompt.source for prompt in prompts} == {"data"}
    first = load_prompts([save(tmp_path / "data.jsonl", ROWS)], "train", DATA)
    assert [prompt.id for prompt in prompts] == [prompt.id for prompt in first]


@pytest.mark.parametrize("suffix", READERS)
def test_a_column_that_no_row_has_is_refused_in_every_format(tmp_path, suffix):
    message = refusal(save(tmp_path / f"data{suffix}", [{"question": "x"}, {"question": "y"}]))
    assert "no key 'prompt'; keys there: question; name the prompt's with --input_key (and 1 more bad rows)" in message


@pytest.mark.parametrize("suffix", READERS)
def test_missing_files_and_folders_of_that_name(tmp_path, suffix):
    assert refusal(tmp_path / f"none{suffix}").startswith(": no such file (looked in ")
    (tmp_path / f"folder{suffix}").mkdir()
    assert ": cannot be read (" in refusal(tmp_path / f"folder{suffix}")


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
def test_text_that_is_not_utf8_is_refused_and_a_byte_order_mark_is_not_text(tmp_path, suffix):
    path = tmp_path / f"data{suffix}"
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "x"}' if suffix != ".csv" else b"\xef\xbb\xbfprompt\nx\n")
    if suffix == ".json":
        path.write_bytes(b'\xef\xbb\xbf[{"prompt": "x"}]')
    [prompt] = load_prompts([str(path)], "train", DATA)
    assert prompt.messages[0]["content"] == "x"
    path.write_bytes(b"prompt\n\xff\n")
    assert "not UTF-8" in refusal(path)


# .json


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ('[\n{"prompt": "x"},\n\n{"prompt":\n "y"}, {"prompt": "z"}\n]\n', (2, 4, 5)),
        (
            '{"a": {"data": [1]},\n"data":[ {"prompt": "x"}\n,\n\n{"prompt": "y"} , {"prompt": "z"}], "n": "]"}',
            (2, 5, 5),
        ),
    ],
)
def test_rows_of_json_are_placed_by_the_line_they_begin_on(tmp_path, text, lines):
    path = text_file(tmp_path / "a.json", text)
    assert read(path) == [(f"{path}:{line}", {"prompt": name}) for line, name in zip(lines, "xyz", strict=True)]


def test_a_repeated_key_counts_as_it_does_for_everyone_else(tmp_path):
    """json.loads takes the last one."""
    assert read(text_file(tmp_path / "a.json", '{"rows": [1, 2],\n"rows": [3]}')) == [(f"{tmp_path}/a.json:2", 3)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[{"prompt": "x"},\n {"prompt" "y"}]', ":2: invalid JSON (Expecting ':' delimiter, column 12)"),
        ('[{"prompt": "x"}', ":1: invalid JSON (Expecting ',' delimiter, column 17)"),
        ('{"prompt": "x"}\n{"prompt": "y"}', ":2: invalid JSON (Extra data, column 1); one object a line is .jsonl"),
        ('{"prompt": "x"}', ": it must hold one array of objects, and there is none"),
        ('{"train": [], "test": []}', ": it must hold one array of objects, and there are 2: train, test"),
        ("5", ": it must hold one array of objects, and there is none"),
        ("[" * 100_000, ": invalid JSON (nested too deeply)"),
        ("[]", " is empty; it needs at least one row"),
        (" \n", " is empty; it needs at least one row"),
        ('[{"prompt": "x"},\n"y"]', ":2: the row is a str; a JSON object"),
    ],
)
def test_broken_json_is_refused_with_its_line(tmp_path, text, expected):
    assert refusal(text_file(tmp_path / "a.json", text)).startswith(expected)


def test_a_line_of_jsonl_that_nests_too_deeply_is_one_bad_row(tmp_path):
    [(_, first), (where, second)] = read(text_file(tmp_path / "a.jsonl", '{"prompt": "x"}\n' + "[" * 100_000))
    assert first == {"prompt": "x"} and where.endswith(":2") and isinstance(second, BadRow)


# .csv


def test_rows_of_csv_are_placed_by_the_line_they_begin_on(tmp_path):
    path = text_file(tmp_path / "a.csv", 'prompt,label\n\n"one\ntwo",5\r\nthree,\n')
    assert read(path) == [
        (f"{path}:3", {"prompt": "one\ntwo", "label": "5"}),
        (f"{path}:5", {"prompt": "three", "label": None}),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("prompt,label\nx,1\ny,2,3\n", ":3: 3 values for the 2 columns prompt, label; quote values with commas"),
        ("prompt,label\nx\n", ":2: 1 values for the 2 columns"),
        ("prompt,label\n,1\n", ":2: 'prompt' is empty"),
        ('prompt,label\nx,1\n"y,2\n', ":3: broken CSV (unexpected end of data)"),
        ('prompt,label\n"x"y,2\n', ":2: broken CSV ("),
        ("prompt,label,label\nx,1,2\n", ": two columns are named 'label'"),
        ("prompt;label\nx;1\n", ":2: no key 'prompt'; keys there: prompt;label; separate columns by commas, not ';'"),
        (
            "prompt\tlabel\nx, y\t1\n",
            ":2: 2 values for the 1 columns prompt\tlabel; separate columns by commas, not '\\t'",
        ),
        ("prompt,label\n", " is empty"),
        ("", " is empty"),
    ],
)
def test_broken_csv_is_refused_with_its_line(tmp_path, text, expected):
    assert refusal(text_file(tmp_path / "a.csv", text)).startswith(expected)


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_a_key_that_stands_twice_in_a_row_makes_it_a_bad_row(tmp_path, suffix):
    row = '{"prompt": "x", "info": {"a": 1, "b": 2, "a": 3}}'
    path = text_file(tmp_path / f"a{suffix}", row if suffix == ".jsonl" else f"[{row}]")
    assert refusal(path).startswith(":1: key 'a' stands there twice; keep one of them")


def test_numbers_that_json_has_no_word_for_are_read_as_python_writes_them(tmp_path):
    path = text_file(tmp_path / "a.jsonl", '{"prompt": "x", "level": NaN, "most": 1e999}\n')
    [prompt] = load_prompts([str(path)], "train", DATA)
    assert np.isnan(prompt.columns["level"]) and prompt.columns["most"] == float("inf")


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_links_that_lead_nowhere_and_folders_are_refused_in_one_line(tmp_path, suffix):
    broken, circle, folder = (tmp_path / f"{name}{suffix}" for name in ("broken", "circle", "folder"))
    broken.symlink_to(tmp_path / "nothing")
    circle.symlink_to(circle)
    folder.mkdir()
    assert refusal(str(broken)).startswith(": no such file (looked in ")
    for path, reason in ((circle, "Too many levels of symbolic links"), (folder, "a directory")):
        assert refusal(str(path)).startswith(": cannot be read (") and reason in refusal(str(path))


# .parquet


def test_rows_of_parquet_are_numbered_across_batches_and_row_groups(tmp_path):
    table = pyarrow.Table.from_pylist([{"prompt": str(number)} for number in range(1, 10_001)])
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=3000)
    found = read(tmp_path / "a.parquet")
    assert found == [(f"{tmp_path}/a.parquet row {number}", {"prompt": str(number)}) for number in range(1, 10_001)]


def test_verls_parquet_is_read_with_its_nested_values(tmp_path):
    """As verl's own scripts write it, by way of pandas and numpy."""
    row = {
        "data_source": "openai/gsm8k",
        "prompt": np.array([{"role": "user", "content": "2 + 3?"}], dtype=object),
        "reward_model": {"style": "rule", "ground_truth": np.array(["5", "five"], dtype=object)},
        "extra_info": {"index": np.int64(4), "weights": np.array([0.5, 1.0])},
    }
    pandas.DataFrame([row]).to_parquet(tmp_path / "verl.parquet")
    [prompt] = load_prompts([str(tmp_path / "verl.parquet")], "train", DATA)
    assert prompt.messages == ({"role": "user", "content": "2 + 3?"},)
    assert (prompt.source, prompt.reference) == ("openai/gsm8k", ["5", "five"])
    assert prompt.columns["extra_info"] == {"index": 4, "weights": [0.5, 1.0]}
    assert [type(value) for value in prompt.columns["extra_info"].values()] == [int, list]


def test_what_is_not_parquet_is_refused(tmp_path, monkeypatch):
    path = text_file(tmp_path / "a.parquet", "prompt\nx\n")
    assert refusal(path).startswith(": cannot be read as parquet (")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert refusal(path).startswith(" needs a package: pip install pyarrow")
