"""Which folders a run may write into: nothing that someone else put there is ever at risk."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from lightrft.args import parse
from lightrft.errors import Refused
from lightrft.loop.run_folders import check_folders

FLAGS = """--pretrain base --prompt_data rows.jsonl --prompt_max_len 16 --max_len 24 --reward_fn last_number
 --rollout_batch_size 2 --n_samples_per_prompt 2 --train_batch_size 4"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a base model, and data in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    make("base/config.json", "base/model.safetensors", "data/rows.jsonl", "rows.jsonl")
    return tmp_path


def make(*paths):
    for path in map(Path, paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("content")


def check(words="--save_path run"):
    before = everything()
    check_folders(parse([*FLAGS.split(), *words.split()]))
    assert everything() == before, "something was made"


def everything():
    return sorted((str(path), path.is_symlink()) for path in Path.cwd().rglob("*"))


def refused(words="--save_path run"):
    with pytest.raises(Refused) as found:
        check(words)
    assert "\n" not in str(found.value)
    return str(found.value)


def checkpoint(path, **arguments):
    """As a run that had these arguments leaves it."""
    make(f"{path}/policy/weights")
    values = {"save_path": "run", "ckpt_path": "run/checkpoints", "log_dir": "run/logs", "use_tensorboard": None}
    told = {flag: {"value": value} for flag, value in {**values, **arguments}.items()}
    (Path(path) / "state.json").write_text(json.dumps({"record": {"arguments": told}}))


# Fresh starts


@pytest.mark.parametrize("words", ("", " --load_checkpoint"))
def test_new_and_empty_folders_and_what_nobody_misses(here, words):
    check("--save_path run" + words)
    Path("run/logs/plots").mkdir(parents=True)
    Path("run/lost+found").mkdir()
    make("run/.gitkeep", "run/train.log", "run/slurm-12.out", "run/job.err")
    check("--save_path run" + words)
    Path("linked").symlink_to("run")
    check("--save_path linked" + words)


RUN_OR_MODEL = """config.json model.safetensors model-00001-of-00002.safetensors pytorch_model.bin summary.json
 model.safetensors.index.json adapter_model.safetensors tokenizer.json checkpoints/step_000001/state.json
 logs/events.out.tfevents.1.host.2 logs/x/model.safetensors critic/config.json"""


@pytest.mark.parametrize("name", RUN_OR_MODEL.split())
@pytest.mark.parametrize("load", (False, True))
def test_a_run_or_a_model_is_not_written_over(here, name, load):
    """Also by --load_checkpoint, where there is none: it would start fresh."""
    make(f"run/{name}")
    if load and name.startswith("checkpoints"):
        return
    said = refused("--save_path run" + " --load_checkpoint" * load)
    assert said.startswith("--save_path run ") and "choose another --save_path" in said
    assert ("no checkpoint in run/checkpoints to go on from" in said) == load
    assert (": go on" in said or "--load_checkpoint" in said) == (not load) or "logs/x" in name


def test_the_words_for_a_run(here):
    make("run/logs/run.json", "run/logs/metrics.jsonl")
    assert refused() == (
        "--save_path run already holds a run or a model (run/logs/metrics.jsonl); "
        "go on with a run by --load_checkpoint, or choose another --save_path"
    )


# Folders, as far as they are named, and a file in them
LEFT_BY_A_KILL = """checkpoints/latest checkpoints/.step_000002.tmp|policy/weights checkpoints/.step_000002.old|x
 checkpoints/step_000002|hf/config.json .export.tmp|config.json ema|.export.tmp/config.json logs/metrics.jsonl.old
 logs/plots|curves.png logs/trajectories|step_000001.jsonl logs/profile|step_1.json logs/wandb|x"""


@pytest.mark.parametrize("name", LEFT_BY_A_KILL.split())
def test_what_a_killed_run_leaves_is_a_run(here, name):
    make("run/.lock", "run/checkpoints/.lock", "run/logs/.lock", "run/checkpoints/.latest.tmp")
    make(f"run/{name.replace('|', '/')}")
    assert refused() == (
        f"--save_path run already holds a run or a model (run/{name.partition('|')[0]}); "
        "go on with a run by --load_checkpoint, or choose another --save_path"
    )


@pytest.mark.parametrize("name", ("notes.txt", "data/rows.parquet", "src/train.py", ".git/HEAD", "logs/notes.txt"))
def test_nor_anything_that_this_run_did_not_write(here, name):
    make(f"run/{name}")
    assert "--save_path run holds what this run did not write (" in refused()
    assert "and there is no checkpoint in run/checkpoints to go on from" in refused("--save_path run --load_checkpoint")


@pytest.mark.parametrize("flag", ("ckpt_path", "log_dir", "use_tensorboard"))
def test_the_other_folders_are_looked_at_alike(here, flag):
    make("other/notes.txt")
    assert f"--{flag} other holds what this run did not write (other/notes.txt)" in refused(
        f"--save_path run --{flag} other"
    )
    make("run2/deep/er/x.txt")
    assert f"--{flag} run2/deep" in refused(f"--save_path run --{flag} run2/deep")
    Path("run3/mine").mkdir(parents=True)
    check(f"--save_path run3 --{flag} run3/mine")
    check(f"--save_path run3 --{flag} run3/mine/deeper")
    check(f"--save_path run3 --{flag} run3")


@pytest.mark.parametrize("flag", ("save_path", "log_dir", "ckpt_path", "use_tensorboard"))
def test_a_folder_that_says_it_can_be_written_to_and_cannot(here, flag, monkeypatch):
    """As a disk without a free inode: asked, it allows all."""
    (here / "full").mkdir()
    real = os.mkdir

    def full(path, *more, **options):
        if str(path).startswith(str(here / "full")):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        real(path, *more, **options)

    monkeypatch.setattr("os.mkdir", full)
    why = f"no folder can be made in {here / 'full'} (No space left on device); choose another path"
    assert refused(f"--save_path run --{flag} full/run") == f"--{flag} full/run: {why}"


def test_links_are_followed(here):
    make("precious/notes.txt")
    Path("run").mkdir()
    Path("run/checkpoints").symlink_to(here / "precious")
    assert "notes.txt" in refused()
    Path("run/checkpoints").unlink()
    Path("empty").mkdir()
    Path("run/checkpoints").symlink_to(here / "empty")
    check()
    Path("run/other").symlink_to(here / "data")
    assert "run/other" in refused()
    Path("link").symlink_to("precious")
    assert "notes.txt" in refused("--save_path link")


def test_what_a_start_without_a_checkpoint_left(here):
    """It failed in its first step: the same command again works. Killed later: with --load_checkpoint only."""
    make("run/logs/run.json", "run/logs/run.json.old2", "run/logs/wandb_id")
    Path("run/logs/metrics.jsonl").touch()
    Path("run/checkpoints").mkdir()
    check()
    make("run/logs/metrics.jsonl", "run/logs/trajectories/step_000001.jsonl", "run/logs/plots/curves.png")
    make("run/checkpoints/.step_000001.tmp/policy/weights", "run/tb/events.out.tfevents.1.host.2")
    flags = "--save_path run --use_tensorboard run/tb"
    assert "run/logs/metrics.jsonl" in refused() or "tb" in refused()
    check(f"{flags} --load_checkpoint")
    make("run/.export.tmp/config.json")  # killed as it exported
    check(f"{flags} --load_checkpoint")
    make("run/config.json")
    assert "run/config.json" in refused(f"{flags} --load_checkpoint")
    Path("run/config.json").unlink()
    Path("run/logs/run.json").unlink()  # no start of ours
    assert "did not write" in refused(f"{flags} --load_checkpoint") or "already" in refused(
        f"{flags} --load_checkpoint"
    )


def test_all_in_one_folder(here):
    make("run/run.json", "run/metrics.jsonl", "run/latest", "run/.step_000001.tmp/x")
    check("--save_path run --log_dir run --ckpt_path run --load_checkpoint")
    make("run/model.safetensors")
    assert "model.safetensors" in refused("--save_path run --log_dir run --ckpt_path run --load_checkpoint")


# Going on


def test_a_run_goes_on_in_its_own_folders(here):
    checkpoint("run/checkpoints/step_000002")
    make("run/config.json", "run/model.safetensors", "run/summary.json", "run/logs/metrics.jsonl", "run/my_notes.txt")
    check("--save_path run --load_checkpoint")
    Path("run").rename("moved")
    check("--save_path moved --load_checkpoint")
    assert "already holds a run" in refused("--save_path moved")


def test_a_run_does_not_go_on_in_the_folders_of_another(here):
    """With --ckpt_path elsewhere, --save_path was the base model's, or another run's: both were written over."""
    checkpoint("ck/step_000002", save_path="run", ckpt_path="ck")
    go_on = "--ckpt_path ck --load_checkpoint"
    make("run/config.json")
    check(f"--save_path run {go_on}")
    check(f"--save_path new {go_on}")
    make("finished/config.json", "finished/logs/metrics.jsonl", "logs/metrics.jsonl")
    said = refused(f"--save_path finished {go_on}")
    assert said == (
        "--save_path finished holds what the run in --ckpt_path ck did not write (finished/config.json); "
        "choose another --save_path"
    )
    assert "--log_dir logs holds what the run in --ckpt_path ck" in refused(f"--save_path run --log_dir logs {go_on}")
    (Path("ck/step_000002") / "state.json").write_text("{")  # what cannot be read speaks for nothing
    assert "config.json" in refused(f"--save_path finished {go_on}")


def test_another_run_s_own_checkpoints_are_not_gone_on_from_in_their_folder(here):
    """They were removed one by one as the new run saved its own there."""
    checkpoint("run/checkpoints/step_000002")
    assert refused("--save_path new --ckpt_path run/checkpoints --load_checkpoint") == (
        "--save_path new: --ckpt_path run/checkpoints lies in the --save_path of another run; go on with that one, or "
        "branch off from one of its checkpoints with --ckpt_path run/checkpoints/step_000002"
    )
    check("--save_path run --load_checkpoint")
    check("--save_path new --ckpt_path run/checkpoints/step_000002 --load_checkpoint")


def test_paths_of_a_run_that_was_started_elsewhere_are_not_ours(here, monkeypatch):
    """run/ here and the run/ that the checkpoint speaks of are two folders."""
    checkpoint("there/run/checkpoints/step_000002")
    make("here/run/config.json", "here/rows.jsonl", "here/base/config.json")
    monkeypatch.chdir(here / "here")
    go_on = "--ckpt_path ../there/run/checkpoints --load_checkpoint"
    said = refused(f"--save_path run {go_on}")
    assert "run holds what the run in --ckpt_path ../there/run/checkpoints did not write (run/config.json)" in said
    check(f"--save_path ../there/run {go_on}")


# Folders that are read


@pytest.mark.parametrize("flag", ("save_path", "ckpt_path", "log_dir", "use_tensorboard"))
def test_nothing_is_written_into_a_model_or_a_data_set(here, flag):
    Path("alias").symlink_to("base")
    go_on = "" if flag == "save_path" else "--save_path run "
    assert f"--{flag} base is the same folder as --pretrain base, which is only read" in refused(
        f"{go_on}--{flag} base"
    )
    assert f"--{flag} base/out is inside --pretrain base" in refused(f"{go_on}--{flag} base/out")
    assert f"--{flag} alias/out is inside --pretrain base" in refused(f"{go_on}--{flag} alias/out")
    data = f"{go_on}--{flag} data/out --prompt_data data"
    assert f"--{flag} data/out is inside --prompt_data data" in refused(data)
    assert f"--{flag} base is the same folder as --pretrain" in refused(f"{go_on}--{flag} base --load_checkpoint")
    adapter = f"{go_on}--{flag} data/out --lora_path data"
    assert f"--{flag} data/out is inside --lora_path data" in refused(adapter)


def test_links_that_lead_nowhere_in_what_is_looked_at(here):
    """Of a run that was made through a link that is a circle now, and inside the folder."""
    Path("circle").symlink_to("circle")
    checkpoint("ck/step_000002", save_path="circle", ckpt_path="ck")
    check("--save_path run --ckpt_path ck --load_checkpoint")
    Path("run").mkdir()
    for target in ("circle", "nowhere"):
        Path("run/link").symlink_to(target)
        assert "(run/link)" in refused()
        Path("run/link").unlink()


def test_a_model_in_the_folder_of_an_earlier_run_is_fine(here):
    checkpoint("old/checkpoints/step_000002")
    make("old/checkpoints/step_000002/hf/config.json")
    check("--pretrain old/checkpoints/step_000002/hf --save_path run")


# Paths that no folder can be made at


def test_links_that_lead_nowhere(here):
    Path("broken").symlink_to("nowhere")
    Path("circle").symlink_to("circle")
    for flag in ("save_path", "ckpt_path", "log_dir", "use_tensorboard"):
        own = "" if flag == "save_path" else "--save_path run "
        for tail in ("", "/below/it"):
            said = refused(f"{own}--{flag} broken{tail}")
            assert said.startswith(f"--{flag} broken{tail}: {here}/broken is a broken link to nowhere; remove the link")
            assert f"--{flag} circle{tail}: {here}/circle is a link in a circle" in refused(
                f"{own}--{flag} circle{tail}"
            )


def test_paths_below_a_file_and_names_too_long(here):
    make("file")
    assert refused("--save_path file/run") == (
        f"--save_path file/run: {here}/file is a file, not a folder; choose another path"
    )
    assert "is a file" in refused("--save_path file")
    assert "a path is too long; give a shorter one" in refused(f"--save_path {'x' * 300}")
    assert "a path is too long; give a shorter one" in refused(f"--save_path not/there/{'x' * 300}")
    room = 4090 - len(str(here))
    assert "a path is too long; give a shorter one" in refused(f"--save_path {'abcdefgh/' * (room // 9)}")
    assert "a path is too long; give a shorter one" in refused(f"--save_path {'abcdefgh/' * 600}")


def test_folders_without_permission(here, monkeypatch):
    """The tests may run as root, who may do everything: what the system would say is put in its place."""
    Path("closed").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "closed")
    assert "closed cannot be written to; choose another path or change its permissions" in refused(
        "--save_path closed/run"
    )
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.R_OK)
    assert "closed cannot be read; choose another path" in refused("--save_path closed/run")
    monkeypatch.undo()
    monkeypatch.chdir(here)
    real = Path.stat

    def stat(self, **more):
        if "shut" in self.parts:
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, **more)

    monkeypatch.setattr(Path, "stat", stat)
    assert "cannot be reached; choose another path" in refused("--save_path shut/run")
