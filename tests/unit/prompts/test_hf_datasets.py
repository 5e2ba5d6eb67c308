"""Datasets of the `datasets` library: no network is used, and its cache is the test's own folder."""

import json
import socket
import sys
import time

import datasets
import pytest
from huggingface_hub import constants

from lightrft.args.groups.data import DataArgs
from lightrft.errors import Refused
from lightrft.prompts.dataset import load_prompts

ROWS = [{"prompt": "x", "label": "1"}, {"prompt": "y", "label": "2"}]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)


def load(spec, split="train", flag="--prompt_data"):
    return load_prompts([spec], split, DataArgs(prompt_data=()), flag=flag)


def seen(prompts):
    return [(prompt.messages[0]["content"], prompt.reference, prompt.source, prompt.where) for prompt in prompts]


def refusal(spec, split="train", flag="--prompt_data"):
    with pytest.raises(Refused) as caught:
        load(spec, split, flag)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def splits(**rows):
    return datasets.DatasetDict({name: datasets.Dataset.from_list(listed) for name, listed in rows.items()})


def test_a_saved_dataset_is_one_split_and_used_whole(tmp_path):
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "sums")
    for split in ("train", "test"):
        assert seen(load("sums", split)) == [("x", "1", "sums", "sums row 1"), ("y", "2", "sums", "sums row 2")]


def test_a_folder_names_its_source_however_it_is_written(tmp_path, monkeypatch):
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "sums-1.5")
    assert [load(spec)[0].source for spec in ("sums-1.5", "./sums-1.5/")] == ["sums-1.5", "sums-1.5"]
    monkeypatch.chdir(tmp_path / "sums-1.5")
    assert load(".")[0].source == "sums-1.5"


def test_a_saved_dataset_keeps_its_selection_of_rows(tmp_path):
    datasets.Dataset.from_list(ROWS).select([1]).save_to_disk(tmp_path / "sums")
    assert seen(load("sums")) == [("y", "2", "sums", "sums row 1")]


def test_the_split_chooses_among_those_of_a_dataset_dict(tmp_path):
    splits(train=ROWS[:1], held_out=ROWS[1:]).save_to_disk(tmp_path / "both")
    assert seen(load("both")) == [("x", "1", "both", "both[train] row 1")]
    assert seen(load("both", "held_out")) == [("y", "2", "both", "both[held_out] row 1")]


def test_an_unknown_split_is_refused_with_those_that_there_are(tmp_path):
    splits(train=ROWS[:1], held_out=ROWS[1:]).save_to_disk(tmp_path / "both")
    there = "both: no split 'test'; there is train, held_out, chosen by"
    assert refusal("both", "test") == f"--prompt_data {there} --prompt_split"
    assert refusal("both", "test", "--eval_data") == f"--eval_data {there} --eval_split"


def test_a_folder_of_data_files_has_a_split_per_file(tmp_path):
    for name, row in (("train", ROWS[0]), ("test", ROWS[1])):
        (tmp_path / "files").mkdir(exist_ok=True)
        (tmp_path / "files" / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    assert seen(load("files", "test")) == [("y", "2", "files", "files[test] row 1")]


def test_nested_rows_keep_their_types(tmp_path):
    chat = [{"role": "system", "content": "s", "name": "a"}, {"role": "user", "content": "u"}]
    row = {"prompt": chat, "reward_model": {"ground_truth": "5"}, "numbers": [1, 2]}
    datasets.Dataset.from_list([row]).save_to_disk(tmp_path / "verl")
    [prompt] = load("verl")
    assert (prompt.messages, prompt.reference, prompt.columns["numbers"]) == (tuple(chat), "5", [1, 2])


def test_bad_rows_are_placed_in_their_split(tmp_path):
    splits(train=[{"prompt": "x"}, {"prompt": ""}]).save_to_disk(tmp_path / "both")
    assert (
        refusal("both") == "--prompt_data both[train] row 2: 'prompt' is an empty text; --on_bad_row skip leaves it out"
    )


def test_folders_that_hold_no_dataset_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "--prompt_data empty: cannot be read as a dataset (EmptyDatasetError" in refusal("empty")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "train.jsonl").write_text('{"prompt": "x"\n')
    message = refusal("broken")
    assert "--prompt_data broken: cannot be read as a dataset" in message and "JSON" in message


@pytest.mark.parametrize("spec", ["no-org/no-data", "no-org/no-data:main", "no-org/no-data-1.5"])
def test_without_the_hub_a_name_that_is_not_in_the_cache_is_refused(spec):
    said = f"--prompt_data {spec}: no such folder here, and as a hub name it cannot be loaded: HF_HUB_OFFLINE is set"
    assert refusal(spec).startswith(said)


def test_a_hub_that_does_not_answer_is_not_waited_for(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    start = time.monotonic()
    assert f"cannot be loaded: http://127.0.0.1:{port} cannot be reached" in refusal("no-org/no-data")
    assert time.monotonic() - start < 20 and not constants.HF_HUB_OFFLINE and not datasets.config.HF_HUB_OFFLINE


def test_without_the_package_the_way_to_install_it_is_named(tmp_path, monkeypatch):
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "sums")
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "--prompt_data sums needs a package: pip install datasets" in refusal("sums")
