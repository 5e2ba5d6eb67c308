from __future__ import annotations

import hashlib
import json
import os
import tracemalloc
from pathlib import Path

import pytest

from lightrft.args.surface import FLAGS
from lightrft.track import run_record
from lightrft.track.run_record import PACKAGES, ROUND, changes_told, hashes, make_record, write_json
from lightrft.track.run_record import differences as differences_by_name

SHA_OF_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2's example


def differences(before, now):
    return list(differences_by_name(before, now).values())


def record(**changes):
    made = {
        "arguments": {"seed": {"value": 1, "source": "default"}, "quiet": {"value": False, "source": "default"}},
        "hashes": {"a.jsonl": "0123456789abcdef"},
        "packages": {"torch": "2.13.0"},
    }
    return {**made, **changes}


def test_differences_name_what_changed_and_leave_out_what_a_resumption_changes():
    changed = record(
        arguments={"seed": {"value": 2, "source": "flag"}, "quiet": {"value": True, "source": "flag"}},
        hashes={"a.jsonl": "fedcba9876543210"},
        packages={"torch": "2.14.0", "vllm": "1.0"},
    )
    assert differences(record(), changed) == [
        "--seed was 1, is 2",
        "hash of a.jsonl was 0123456789ab, is fedcba987654",
        "version of torch was 2.13.0, is 2.14.0",
        "version of vllm was none, is 1.0",
    ]
    assert differences(record(), record(runtime={"device": "cuda"})) == ["device was none, is cuda"]
    assert differences(record(git={"revision": "a", "dirty": False}), record(git={"revision": "b", "dirty": True})) == [
        "git revision was a, is b",
        "whether the git tree is dirty was false, is true",
    ]
    assert differences(record(hardware={"python": "3.11.7"}), record(hardware={"python": "3.12.1"})) == [
        "version of python was 3.11.7, is 3.12.1"
    ]
    other_source = record(arguments={**record()["arguments"], "seed": {"value": 1, "source": "flag"}})
    assert differences(record(), other_source) == []


def test_what_a_changed_flag_comes_to_is_not_told_beside_it():
    def made(flag: str, value: str, **runtime):
        return record(arguments={flag: {"value": value, "source": "flag"}}, runtime=runtime)

    before = made("engine_type", "local", engine="local (asked for)", device="cpu")
    now = made("engine_type", "vllm", engine="vllm (asked for)", device="cuda")
    assert differences(before, now) == ["--engine_type was local, is vllm", "device was cpu, is cuda"]
    auto = made("engine_type", "auto", engine="local (auto)"), made("engine_type", "auto", engine="vllm (auto)")
    assert differences(*auto) == ["engine was local (auto), is vllm (auto)"]


def of_flags(**values):
    return record(arguments={flag: {"value": value, "source": "cli"} for flag, value in values.items()})


def test_values_are_written_as_print_args_writes_them():
    before = of_flags(fsdp=False, stop=[], lora_path=None, system_prompt="a", reward_weights={"a": 1.0})
    now = of_flags(fsdp=True, stop=["a", "b c"], lora_path="x", system_prompt="", reward_weights={"a": 0.5})
    assert differences(before, now) == [
        "--fsdp was false, is true",
        "--lora_path was none, is x",
        "--reward_weights was a=1.0, is a=0.5",
        "--stop was (none), is a 'b c'",
        "--system_prompt was a, is ''",
    ]


def test_what_changes_rounding_alone_is_one_line_and_what_cannot_matter_none():
    before = of_flags(packing_samples=False, seed=1, share_prompts="auto", clip_range=0.2, clip_range_higher=0.2)
    now = of_flags(packing_samples=True, seed=2, share_prompts=False, clip_range=0.1, clip_range_higher=0.3)
    asked = []

    def cannot_matter(flag, other):
        asked.append((flag, other))
        return flag == "clip_range"

    assert changes_told(before, now, cannot_matter) == [
        "warning: changed since that checkpoint: --clip_range_higher was 0.2, is 0.3",
        "warning: changed since that checkpoint: --seed was 1, is 2",
        "notice: changed since that checkpoint, which only changes rounding: --packing_samples was false, is true; "
        "--share_prompts was auto, is false",
    ]
    assert ("clip_range", 0.2) in asked, "the value that it had"
    runtime = (
        record(runtime={"training": "with a row for each sample"}),
        record(runtime={"training": "logits in blocks"}),
    )
    (line,) = changes_told(*runtime, cannot_matter)
    assert line.endswith("only changes rounding: training was with a row for each sample, is logits in blocks")
    assert changes_told(before, before, cannot_matter) == []


def test_what_changes_rounding_alone_are_flags():
    assert ROUND - FLAGS.keys() == {"training"}


def test_a_record_survives_json_without_a_difference(tmp_path):
    data = tmp_path / "train.jsonl"
    data.write_text("{}\n")
    values = {"adam_betas": [0.9, 0.95], "warmup": None}
    arguments = {name: {"value": value, "source": "default"} for name, value in values.items()}
    made = make_record(arguments, [str(data), "hub/name"], {"device": "cpu"}, {"pretrain": "01"})
    write_json(tmp_path / "run.json", made)
    assert differences(json.loads((tmp_path / "run.json").read_text()), made) == []
    assert list(made["hashes"]) == [str(data)] and made["runtime"] == {"device": "cpu"}
    assert {"torch", "transformers", "numpy", "tensorboard"} <= made["packages"].keys() <= set(PACKAGES)
    assert not any("KEY" in name or "TOKEN" in name for name in made["environment"])


def test_a_hash_is_of_the_contents(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert hashes([str(tmp_path / "a")]) == {str(tmp_path / "a"): SHA_OF_ABC}


def test_a_name_that_is_no_text_has_a_hash(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a\udcff").write_bytes(b"abc")
    expected = hashlib.sha256(SHA_OF_ABC.encode() + b"  a\xff\n").hexdigest()
    assert hashes([str(tmp_path / "folder")]) == {str(tmp_path / "folder"): expected}


def test_a_folder_s_hash_is_of_its_files_names_and_contents(tmp_path):
    folder = tmp_path / "data"
    (folder / "train").mkdir(parents=True)
    (folder / "b.txt").write_bytes(b"abc")
    (folder / "train" / "a.txt").write_bytes(b"abc")
    # what `sha256sum b.txt train/a.txt | sha256sum` prints
    expected = hashlib.sha256(f"{SHA_OF_ABC}  b.txt\n{SHA_OF_ABC}  train/a.txt\n".encode()).hexdigest()
    assert hashes([str(folder)]) == {str(folder): expected}
    (folder / "b.txt").rename(folder / "c.txt")
    renamed = hashes([str(folder)])[str(folder)]
    (folder / "c.txt").write_bytes(b"abd")
    assert len({expected, renamed, hashes([str(folder)])[str(folder)]}) == 3


def test_a_large_file_is_hashed_in_pieces(tmp_path):
    """64 MB, of which no more than a few are ever held."""
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(1 << 26)
    tracemalloc.start()
    found = hashes([str(path)])[str(path)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20
    assert found == hashlib.sha256(bytes(1 << 26)).hexdigest()


def test_contents_are_read_of_small_files_and_of_few(tmp_path, monkeypatch):
    """Else of names, sizes and times alone, which show a change as well."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name, size in (("a", 4), ("b", 9), ("c", 4), ("d", 4)):
        (folder / name).write_bytes(bytes(size))
    read = []
    monkeypatch.setattr(run_record, "SMALL", 8)
    monkeypatch.setattr(run_record, "IN_ALL", 8)
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *how, **more: read.append(self.name) or real(self, *how, **more))
    found = [hashes([str(folder)])[str(folder)]]
    assert read == ["a", "c"], "b is large, and with d there would be too much"
    for name in ("b", "d"):
        os.utime(folder / name, (1, 1))
        found.append(hashes([str(folder)])[str(folder)])
        (folder / name).write_bytes(bytes(10))
        found.append(hashes([str(folder)])[str(folder)])
    assert len(set(found)) == 5


def test_a_file_that_is_too_large_to_read_goes_by_size_and_time(tmp_path):
    path = tmp_path / "huge.jsonl"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a hole of 1 TB
    assert len(hashes([str(path)])[str(path)]) == 64


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "run.json"
    write_json(path, {"a": 1})

    class Odd:
        def __str__(self):
            raise ValueError("cannot be written")

    with pytest.raises(ValueError, match="cannot"):
        write_json(path, {"a": Odd()})
    assert json.loads(path.read_text()) == {"a": 1} and [e.name for e in tmp_path.iterdir()] == ["run.json"]


def test_a_value_that_follows_another_flag_is_not_news():
    def of(value, source):
        return {"arguments": {"temperature_final": {"value": value, "source": source}}}

    assert differences(of(1.0, "follows --temperature"), of(0.9, "follows --temperature")) == []
    assert differences(of(1.0, "follows --temperature"), of(0.9, "cli")) == ["--temperature_final was 1.0, is 0.9"]
