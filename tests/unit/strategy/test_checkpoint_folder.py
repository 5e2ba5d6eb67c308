from __future__ import annotations

from pathlib import Path

import pytest

from lightrft.strategy import checkpoint
from lightrft.strategy.checkpoint import CheckpointFolder, size_of

MIB = 1 << 20


def writer(text, size=0):
    def write(path):
        (path / "policy").mkdir()
        (path / "policy" / "weights").write_bytes(bytes(size))
        (path / "state.json").write_text(text)

    return write


def names(path):
    return sorted(entry.name for entry in path.iterdir())


def test_a_checkpoint_appears_whole_and_latest_names_it(tmp_path):
    folder = CheckpointFolder(tmp_path / "ckpt", max_num=3, max_mem=1)
    assert folder.newest() is None
    path = folder.save(7, writer("seven"))
    assert path == tmp_path / "ckpt" / "step_000007" and (path / "state.json").read_text() == "seven"
    assert (tmp_path / "ckpt" / "latest").read_text() == "step_000007\n"
    assert folder.newest() == (7, path) and names(tmp_path / "ckpt") == ["latest", "step_000007"]


def test_a_write_that_fails_leaves_the_one_before_as_the_newest(tmp_path):
    folder = CheckpointFolder(tmp_path, max_num=1, max_mem=1)
    first = folder.save(1, writer("one"))

    def fail(path):
        writer("half")(path)
        assert path.name != "step_000002" and names(path.parent) == [path.name, "latest", "step_000001"]
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        folder.save(2, fail)
    assert folder.newest() == (1, first) and not (tmp_path / "step_000002").exists()
    assert (first / "state.json").read_text() == "one"
    assert (tmp_path / "latest").read_text() == "step_000001\n"


def test_what_a_killed_write_left_is_removed_when_the_step_is_saved_again(tmp_path):
    stale = tmp_path / ".step_000003.tmp"
    stale.mkdir()
    (stale / "half").write_text("")
    path = CheckpointFolder(tmp_path, max_num=2, max_mem=1).save(3, writer("three"))
    assert names(path) == ["policy", "state.json"] and names(tmp_path) == ["latest", "step_000003"]


@pytest.mark.parametrize("moment", ["sync_to_disk", "rename", "_point_latest_at", "_prune"])
def test_a_kill_at_any_moment_leaves_a_whole_checkpoint_as_the_newest(tmp_path, monkeypatch, moment):
    folder = CheckpointFolder(tmp_path, max_num=1, max_mem=1)
    folder.save(1, writer("one"))

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    def rename(self, target, real=Path.rename):
        return killed() if self.is_dir() else real(self, target)

    with monkeypatch.context() as patch:
        doing = rename if moment == "rename" else killed
        patch.setattr({"sync_to_disk": checkpoint, "rename": Path}.get(moment, CheckpointFolder), moment, doing)
        with pytest.raises(KeyboardInterrupt):
            folder.save(2, writer("two"))
    step, path = CheckpointFolder(tmp_path, max_num=1, max_mem=1).newest()
    assert step == (2 if moment == "_prune" else 1)
    assert (tmp_path / "latest").read_text().strip() == path.name
    assert (path / "state.json").read_text() == {1: "one", 2: "two"}[step]


def test_the_same_step_can_be_saved_again(tmp_path):
    folder = CheckpointFolder(tmp_path, max_num=2, max_mem=1)
    folder.save(1, writer("old"))
    assert (folder.save(1, writer("new")) / "state.json").read_text() == "new"


def test_the_newest_is_found_without_a_pointer_and_with_a_dangling_one(tmp_path):
    folder = CheckpointFolder(tmp_path, max_num=5, max_mem=1)
    for step in (9, 999999, 1000000):
        folder.save(step, writer(""))
    (tmp_path / "latest").write_text("step_000777\n")
    assert folder.newest()[0] == 1000000  # by number: as text step_999999 comes after step_1000000
    (tmp_path / "latest").unlink()
    (tmp_path / "step_2000000.bak").mkdir()
    assert folder.newest()[0] == 1000000
    (tmp_path / "latest").write_text("step_000009\n")
    assert folder.newest() == (9, tmp_path / "step_000009")


def test_only_the_newest_of_max_num_stay(tmp_path):
    folder = CheckpointFolder(tmp_path, max_num=2, max_mem=1)
    for step in (1, 2, 3, 4):
        folder.save(step, writer(""))
    assert names(tmp_path) == ["latest", "step_000003", "step_000004"]


def test_the_oldest_go_until_the_rest_fits_in_max_mem_but_never_the_newest(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "GIB", MIB)  # the limit is counted in GiB
    folder = CheckpointFolder(tmp_path, max_num=9, max_mem=2)
    for step in (1, 2, 3):
        folder.save(step, writer("", size=MIB * 6 // 10))
    assert names(tmp_path) == ["latest", "step_000001", "step_000002", "step_000003"]
    folder.save(4, writer("", size=MIB))  # 2.8 MiB: the first has to go, 2.2: the second too
    assert names(tmp_path) == ["latest", "step_000003", "step_000004"]
    folder.save(5, writer("", size=3 * MIB))
    assert names(tmp_path) == ["latest", "step_000005"]


def test_the_size_of_a_folder_counts_files_below_it(tmp_path):
    writer("abc", size=1000)(tmp_path)
    assert size_of(tmp_path) == 1003


def test_saving_a_step_again_keeps_the_first_until_the_second_is_whole(tmp_path):
    folder = CheckpointFolder(tmp_path, 1, 1)
    folder.save(4, lambda path: (path / "content").write_text("first"))

    def fails(path):
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        folder.save(4, fails)
    assert (folder.newest()[1] / "content").read_text() == "first"
    folder.save(4, lambda path: (path / "content").write_text("second"))
    assert (folder.newest()[1] / "content").read_text() == "second"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["latest", "step_000004"]
