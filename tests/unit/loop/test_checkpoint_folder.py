from __future__ import annotations

import itertools
import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from warnings import catch_warnings, simplefilter

import pytest

from lightrft.loop import checkpoint_folder
from lightrft.loop.checkpoint_folder import CheckpointFolder, size_of

MIB = 1 << 20


def writer(text, size=0):
    def write(path):
        (path / "policy").mkdir()
        (path / "policy" / "weights").write_bytes(bytes(size))
        (path / "state.json").write_text(text)

    return write


def save(folder, step, write):
    """As ranks do it together."""
    try:
        write(folder.begin(step))
        return folder.finish(step)
    except BaseException:
        folder.abandon()
        raise


def newest(folder):
    return next(iter(folder.newest_first()), None)


def names(path):
    return sorted(entry.name for entry in path.iterdir())


def test_a_checkpoint_appears_whole_and_latest_names_it(tmp_path):
    folder = CheckpointFolder(tmp_path / "ckpt", max_num=3, max_mem=1)
    assert newest(folder) is None
    path = save(folder, 7, writer("seven"))
    assert path == tmp_path / "ckpt" / "step_000007" and (path / "state.json").read_text() == "seven"
    assert (tmp_path / "ckpt" / "latest").read_text() == "step_000007\n"
    assert newest(folder) == (7, path) and names(tmp_path / "ckpt") == ["latest", "step_000007"]


def test_a_write_that_fails_leaves_the_one_before_as_the_newest(tmp_path):
    folder = CheckpointFolder(tmp_path, max_num=1, max_mem=1)
    first = save(folder, 1, writer("one"))

    def fail(path):
        writer("half")(path)
        assert path.name != "step_000002" and names(path.parent) == [path.name, "latest", "step_000001"]
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        save(folder, 2, fail)
    assert newest(folder) == (1, first) and not (tmp_path / "step_000002").exists()
    assert (first / "state.json").read_text() == "one"
    assert (tmp_path / "latest").read_text() == "step_000001\n"


def test_what_a_killed_write_left_is_removed_when_the_step_is_saved_again(tmp_path):
    stale = tmp_path / ".step_000003.tmp"
    stale.mkdir()
    (stale / "half").write_text("")
    path = save(CheckpointFolder(tmp_path, max_num=2, max_mem=1), 3, writer("three"))
    assert names(path) == ["policy", "state.json"] and names(tmp_path) == ["latest", "step_000003"]


# Killed before every single operation on the file system


class Killed(BaseException):
    """Nothing in the code catches it."""


class Fate:
    """An audit hook (they stay for ever, so there is one): from the `deadline`-th operation on, none is done."""

    WATCHED = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate")

    def __init__(self):
        self.folder, self.deadline, self.done, self.strike = None, 0, 0, None
        sys.addaudithook(self._hook)

    def _hook(self, event, arguments):
        if self.folder is None or event not in self.WATCHED:
            return
        within_a_removal = event in ("os.remove", "os.rmdir") and arguments[1] != -1  # relative to an open folder
        if not within_a_removal and self.folder not in str(arguments[0]):
            return
        self.done += 1
        if self.done >= self.deadline:
            self.strike()

    @contextmanager
    def falls(self, folder, deadline, strike):
        self.folder, self.deadline, self.done, self.strike = str(folder), deadline, 0, strike
        try:
            yield
        finally:
            self.folder = None


@pytest.fixture(scope="module")
def fate():
    return Fate()


def die():
    raise Killed


def situations():
    """What a save may meet: (steps there, the step saved, the step gone back to)."""
    return {"first": ((), 1, None), "next": ((1,), 2, None), "again": ((2,), 2, None), "back": ((1, 2, 3), 2, 1)}


@pytest.mark.parametrize("situation", situations())
def test_killed_before_any_operation_the_newest_is_whole_and_the_next_save_cleans_up(tmp_path, fate, situation):
    """With room for one checkpoint only. Whole is what `write` wrote whole."""
    steps, saved, back = situations()[situation]
    points = 0
    for deadline in itertools.count(1):
        path = tmp_path / str(deadline)
        folder = CheckpointFolder(path, max_num=9, max_mem=1)
        for step in steps:
            save(folder, step, writer(f"old {step}"))
        folder = CheckpointFolder(path, max_num=1, max_mem=1)
        if back:
            folder.go_back(back)
        try:
            with fate.falls(path, deadline, die):
                save(folder, saved, writer(f"new {saved}"))
            break
        except Killed:
            points += 1
        check_found(path, steps, saved)
        recovered = CheckpointFolder(path, max_num=1, max_mem=1)
        recovered.clean()
        check_found(path, steps, saved)
        save(recovered, 9, writer("nine"))
        assert names(path) == ["latest", "step_000009"], deadline
    assert points >= 10 and names(path) == ["latest", f"step_{saved:06d}"]


def check_found(path, steps, saved):
    """Whole checkpoints only; the newest is one of before, or the new one; those before go only after that."""
    found = CheckpointFolder(path, 1, 1).newest_first()
    texts = {step: (entry / "state.json").read_text() for step, entry in found}
    assert all(sorted(set(names(entry)) - {"replaces"}) == ["policy", "state.json"] for _, entry in found)
    assert all(text == f"new {step}" or (text == f"old {step}" and step in steps) for step, text in texts.items())
    new_stands = texts.get(saved) == f"new {saved}"
    assert new_stands or sorted(texts) == sorted(steps)
    if new_stands:  # what a run goes back on is gone with it: a later step would be taken for the newest
        assert max(texts) == saved


@pytest.mark.parametrize("deadline", (3, 9, 12, 15, 18))
def test_a_process_that_is_really_killed(tmp_path, fate, deadline):
    save(CheckpointFolder(tmp_path, max_num=1, max_mem=1), 2, writer("old 2"))
    with catch_warnings():
        simplefilter("ignore", DeprecationWarning)  # a fork beside threads; the child touches files alone
        child = os.fork()
    if not child:
        with fate.falls(tmp_path, deadline, lambda: os.kill(os.getpid(), signal.SIGKILL)):
            save(CheckpointFolder(tmp_path, max_num=1, max_mem=1), 2, writer("new 2"))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    check_found(tmp_path, (2,), 2)
    CheckpointFolder(tmp_path, max_num=1, max_mem=1).clean()
    assert [name for name in names(tmp_path) if name.startswith(".")] == []
    check_found(tmp_path, (2,), 2)


def test_everything_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    """fsync of every file and folder, then the rename, then fsync of the folder that holds the new name."""
    told, real_sync, real_rename = [], os.fsync, Path.rename

    def sync(descriptor):
        told.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        real_sync(descriptor)

    def rename(self, target):
        told.append(f"{self.name} -> {Path(target).name}")
        return real_rename(self, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "rename", rename)
    (tmp_path / "ckpt").mkdir()
    save(CheckpointFolder(tmp_path / "ckpt", 1, 1), 1, writer("one"))
    named = told.index(".step_000001.tmp -> step_000001")
    assert set(told[:named]) == {"policy", "weights", "state.json", ".step_000001.tmp"}
    assert "ckpt" in told[named:]


def test_the_folder_above_need_not_be_readable(tmp_path, monkeypatch):
    """As a home below a folder of mode 711; the tests may run as root, who may read everything."""
    real = os.open

    def opened(path, *how, **more):
        if Path(path) == tmp_path:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *how, **more)

    folder = CheckpointFolder(tmp_path / "ckpt", 1, 1)
    (tmp_path / "ckpt").mkdir()
    monkeypatch.setattr(os, "open", opened)
    assert save(folder, 1, writer("one")).is_dir() and (tmp_path / "ckpt" / "latest").is_file()


def test_the_same_step_can_be_saved_again(tmp_path):
    folder = CheckpointFolder(tmp_path, max_num=2, max_mem=1)
    save(folder, 1, writer("old"))
    assert (save(folder, 1, writer("new")) / "state.json").read_text() == "new"


def test_the_newest_is_found_without_a_pointer_and_with_a_dangling_one(tmp_path):
    folder = CheckpointFolder(tmp_path, max_num=5, max_mem=1)
    for step in (9, 999999, 1000000):
        save(folder, step, writer(""))
    (tmp_path / "latest").write_text("step_000777\n")
    assert newest(folder)[0] == 1000000  # by number: as text step_999999 comes after step_1000000
    (tmp_path / "latest").unlink()
    (tmp_path / "step_2000000.bak").mkdir()
    assert newest(folder)[0] == 1000000
    (tmp_path / "latest").write_text("step_000009\n")  # a kill before it was moved on
    assert newest(folder) == (1000000, tmp_path / "step_1000000")


def test_only_the_newest_of_max_num_stay(tmp_path):
    folder = CheckpointFolder(tmp_path, max_num=2, max_mem=1)
    for step in (1, 2, 3, 4):
        save(folder, step, writer(""))
    assert names(tmp_path) == ["latest", "step_000003", "step_000004"]


def test_the_oldest_go_until_the_rest_fits_in_max_mem_but_never_the_newest(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_folder, "GIB", MIB)  # the limit is counted in GiB
    folder = CheckpointFolder(tmp_path, max_num=9, max_mem=2)
    for step in (1, 2, 3):
        save(folder, step, writer("", size=MIB * 6 // 10))
    assert names(tmp_path) == ["latest", "step_000001", "step_000002", "step_000003"]
    save(folder, 4, writer("", size=MIB))  # 2.8 MiB: the first has to go, 2.2: the second too
    assert names(tmp_path) == ["latest", "step_000003", "step_000004"]
    save(folder, 5, writer("", size=3 * MIB))
    assert names(tmp_path) == ["latest", "step_000005"]


def test_the_size_of_a_folder_counts_files_below_it(tmp_path):
    writer("abc", size=1000)(tmp_path)
    assert size_of(tmp_path) == 1003


def test_saving_a_step_again_keeps_the_first_until_the_second_is_whole(tmp_path):
    folder = CheckpointFolder(tmp_path, 1, 1)
    save(folder, 4, lambda path: (path / "content").write_text("first"))

    def fails(path):
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        save(folder, 4, fails)
    assert (newest(folder)[1] / "content").read_text() == "first"
    save(folder, 4, lambda path: (path / "content").write_text("second"))
    assert (newest(folder)[1] / "content").read_text() == "second"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["latest", "step_000004"]


def test_what_a_run_goes_back_on_goes_when_the_next_checkpoint_is_whole(tmp_path):
    folder = CheckpointFolder(tmp_path, 9, 1)
    for step in (2, 4, 6, 8):
        save(folder, step, writer(f"old {step}"))
    assert [path.name for path in folder.go_back(4)] == ["step_000008", "step_000006"]
    assert names(tmp_path)[-1] == "step_000008"  # nothing has gone yet

    def fail(path):
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        save(folder, 6, fail)
    assert names(tmp_path) == ["latest", *(f"step_00000{step}" for step in (2, 4, 6, 8))]
    assert (save(folder, 6, writer("new 6")) / "state.json").read_text() == "new 6"
    assert names(tmp_path) == ["latest", "step_000002", "step_000004", "step_000006"]
    save(folder, 8, writer("new 8"))
    assert names(tmp_path)[-2:] == ["step_000006", "step_000008"]


def test_left_overs_count_where_they_cannot_be_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_folder, "GIB", MIB)
    folder = CheckpointFolder(tmp_path, max_num=9, max_mem=2)
    for step in (1, 2):
        save(folder, step, writer("", size=MIB * 6 // 10))
    (tmp_path / ".step_000009.tmp").mkdir()
    writer("", size=MIB // 2)(tmp_path / ".step_000009.tmp")
    monkeypatch.setattr(CheckpointFolder, "clean", lambda self: [])
    save(folder, 3, writer("", size=MIB * 6 // 10))  # 1.8 MiB and half a left-over
    assert names(tmp_path) == [".step_000009.tmp", "latest", "step_000002", "step_000003"]


def test_a_left_over_that_cannot_be_removed_takes_a_checkpoint_s_place(tmp_path, monkeypatch):
    folder = CheckpointFolder(tmp_path, max_num=2, max_mem=1)
    (tmp_path / ".step_000009.tmp").mkdir()
    monkeypatch.setattr(CheckpointFolder, "clean", lambda self: [])
    for step in (1, 2):
        save(folder, step, writer(""))
    assert names(tmp_path) == [".step_000009.tmp", "latest", "step_000002"]


def test_files_and_links_under_a_checkpoint_s_name_are_replaced_and_removed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").write_text("")
    folder = CheckpointFolder(tmp_path / "ckpt", 1, 1)
    save(folder, 1, writer("one"))
    (folder.path / "step_000002").write_text("a file")
    (folder.path / "step_000000").symlink_to(tmp_path / "elsewhere")
    folder.go_back(1)
    save(folder, 2, writer("two"))
    assert names(folder.path) == ["latest", "step_000002"] and (tmp_path / "elsewhere" / "precious").exists()
