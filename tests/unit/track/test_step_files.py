from __future__ import annotations

import pytest

from lightrft.track.step_files import remove_after, set_aside, write_whole


def test_a_file_is_written_whole_or_not_at_all(tmp_path, full_disk):
    path = tmp_path / "step_000001.jsonl"
    write_whole(path, "old\n")
    with full_disk(100), pytest.raises(OSError):
        write_whole(path, "x" * 200)
    assert path.read_text() == "old\n" and list(tmp_path.iterdir()) == [path]
    write_whole(path, b"\x00new")
    assert path.read_bytes() == b"\x00new" and list(tmp_path.iterdir()) == [path]


def make(folder, *names):
    for name in names:
        (folder / name).write_text(name)


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_lies_beyond_the_resumed_step_is_removed(tmp_path):
    make(tmp_path, "step_000001.jsonl", "step_000002.jsonl", "step_000003.jsonl", "length_1000000.png", "curves.png")
    remove_after(tmp_path, 2)
    assert left(tmp_path) == ["curves.png", "step_000001.jsonl", "step_000002.jsonl"]


def test_a_fresh_run_takes_nothing_away(tmp_path):
    make(tmp_path, "step_000001.jsonl", "notes.txt", "my_2024.txt")
    remove_after(tmp_path, 0)
    assert left(tmp_path) == ["my_2024.txt", "notes.txt", "step_000001.jsonl.old"]
    assert (tmp_path / "step_000001.jsonl.old").read_text() == "step_000001.jsonl"


def test_setting_aside_takes_the_first_free_name(tmp_path):
    for text in ("first", "second", "third"):
        make(tmp_path, "run.json")
        (tmp_path / "run.json").write_text(text)
        set_aside(tmp_path / "run.json")
    assert left(tmp_path) == ["run.json.old", "run.json.old2", "run.json.old3"]
    assert (tmp_path / "run.json.old").read_text() == "first" and (tmp_path / "run.json.old3").read_text() == "third"
    (tmp_path / "empty").touch()
    for name in ("empty", "nowhere"):
        set_aside(tmp_path / name)
    assert left(tmp_path) == ["empty", "run.json.old", "run.json.old2", "run.json.old3"]
