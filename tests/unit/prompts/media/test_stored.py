"""Datasets with images in them are opened without a look at one, and rows hold where the bytes are."""

import pickle

import datasets
import pyarrow as pa
import pytest
from pyarrow import parquet

from lightrft.args.groups.data import DataArgs
from lightrft.prompts.dataset import load_prompts
from lightrft.prompts.media import stored
from lightrft.prompts.media.stored import Stored

BROKEN = [b"not an image", b"nor this one!", b"x" * 5]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)


def load(spec, **flags):
    return load_prompts([spec], "train", DataArgs(prompt_data=(), **flags))


def dataset_of(**columns):
    return datasets.Dataset.from_dict(columns)


def test_an_image_column_is_not_decoded_and_gives_its_bytes_when_asked():
    images = datasets.Features({"prompt": datasets.Value("string"), "image": datasets.Image()})
    rows = {"prompt": ["a", "b", "c"], "image": [{"bytes": data, "path": f"{len(data)}.png"} for data in BROKEN]}
    datasets.Dataset.from_dict(rows, features=images).save_to_disk("set")
    prompts = load("set")
    held = [prompt.images[0] for prompt in prompts]
    assert [(one["path"], one["bytes"].size) for one in held] == [("12.png", 12), ("13.png", 13), ("5.png", 5)]
    assert [one["bytes"].read() for one in held] == BROKEN
    assert [prompt.columns for prompt in prompts] == [{"image": {"path": f"{len(data)}.png"}} for data in BROKEN]
    assert prompts[0].folder == "set" and prompts[1].where == "set row 2"


def test_lists_of_images_and_rows_without_one(tmp_path):
    (tmp_path / "a.png").write_bytes(b"of a file")  # `save_to_disk` takes it into the dataset
    features = datasets.Features({"prompt": datasets.Value("string"), "images": datasets.List(datasets.Image())})
    cells = [[{"bytes": BROKEN[0]}, {"path": "a.png"}], None, [], [{"bytes": BROKEN[1]}, {"bytes": BROKEN[2]}]]
    whole = datasets.Dataset.from_dict({"prompt": list("abcd"), "images": cells}, features=features)
    whole.select([3, 0, 2, 1]).save_to_disk("set")
    first, second, *rest = load("set")
    assert [one.read() for one in first.images] == BROKEN[1:]
    assert (second.images[0].read(), second.images[1]["path"]) == (BROKEN[0], "a.png")
    assert second.images[1]["bytes"].read() == b"of a file"
    assert [prompt.images for prompt in rest] == [(), ()]


def test_a_parquet_file_as_verl_writes_it_is_mapped_too():
    prompt = [{"role": "user", "content": "<image>What?"}]
    images = [[{"bytes": data, "path": None}] for data in BROKEN]
    table = pa.table({"prompt": [prompt] * 3, "images": images, "extra_info": [{"raw": data} for data in BROKEN]})
    parquet.write_table(table, "geo.parquet")
    prompts = load("geo.parquet")
    assert all(isinstance(prompt.images[0], Stored) for prompt in prompts)
    assert [prompt.images[0].read() for prompt in prompts] == BROKEN
    assert [prompt.columns for prompt in prompts] == [{"images": [{}], "extra_info": {"raw": data}} for data in BROKEN]
    assert (prompts[2].where, prompts[2].source) == ("geo.parquet row 3", "geo")


def test_rows_of_several_batches_know_their_place():
    count = 2500
    rows = dataset_of(prompt=["x"] * count, image=[{"bytes": str(n).encode()} for n in range(count)])
    rows.save_to_disk("set")
    prompts = load("set")
    assert [prompts[n].images[0].read() for n in (0, 999, 1000, 2499)] == [b"0", b"999", b"1000", b"2499"]


def test_a_dataset_that_is_sent_is_opened_once_by_who_gets_it(monkeypatch):
    dataset_of(prompt=list("abc"), image=[{"bytes": data} for data in BROKEN]).save_to_disk("set")
    letters = [pickle.dumps(prompt) for prompt in load("set")]
    assert max(map(len, letters)) < 4000
    monkeypatch.setattr(stored, "OPENED", {})
    came = [pickle.loads(letter).images[0] for letter in letters]
    assert [one.read() for one in came] == BROKEN
    assert len({id(one.table) for one in came}) == 1


def test_ids_tell_images_apart_by_size_and_path_without_reading_them():
    cells = [{"bytes": b"aa", "path": "1.png"}, {"bytes": b"aa", "path": "2.png"}, {"bytes": b"aaa", "path": "1.png"}]
    dataset_of(prompt=["x"] * 3, image=cells).save_to_disk("set")
    ids = [prompt.id for prompt in load("set")]
    assert len(set(ids)) == 3 and not any("-" in name for name in ids)


def test_images_of_columns_that_no_flag_names_are_not_held():
    cells = [{"bytes": data, "path": "a.png"} for data in BROKEN]
    dataset_of(prompt=list("abc"), scan=cells, raw=BROKEN).save_to_disk("set")
    assert [prompt.columns for prompt in load("set")] == [{"scan": {"path": "a.png"}, "raw": data} for data in BROKEN]


def test_images_inside_the_messages_of_a_dataset():
    parts = [{"type": "image", "image": {"bytes": BROKEN[0], "path": None}, "text": None}]
    parts += [{"type": "text", "image": None, "text": "What?"}]
    dataset_of(prompt=[[{"role": "user", "content": parts}]]).save_to_disk("set")
    [prompt] = load("set")
    assert prompt.images[0].read() == BROKEN[0]
    assert prompt.messages[0]["content"] == ({"type": "image"}, {"type": "text", "text": "What?"})
