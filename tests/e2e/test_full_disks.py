"""A disk that is full during a save, at the end, from the start: one line, and what stood stands."""

from __future__ import annotations

from failing import each_library
from refusals import failed
from runs import files, rows, train


@each_library
def test_a_disk_that_is_full_during_a_save(here, strategy, full_disk):
    flags = f"{strategy} --max_steps 6 --save_steps 2 --save_interval 0 --save_path run --quiet"
    assert train(f"{flags} --max_steps 2").code == 0
    before = files(here / "run/checkpoints")
    with full_disk(1 << 20):  # of some five million bytes
        said = failed(
            f"{flags} --load_checkpoint",
            "--ckpt_path run/checkpoints: the checkpoint of step 4 could not be written: File too large (about ",
            " MB are needed, ",
            " MB free); run/checkpoints/step_000002 stands; make room and use --load_checkpoint",
        )
    assert "kept" not in said and "lost" not in said
    assert files(here / "run/checkpoints") == before
    assert (here / "run/checkpoints/latest").read_text() == "step_000002\n"
    assert train(f"{flags} --load_checkpoint").code == 0
    assert [row["step"] for row in rows(here / "run")] == [1, 2, 3, 4, 5, 6]


def test_a_disk_that_is_full_at_the_end(here, full_disk):
    """The model does not fit; what has learned is a checkpoint, on another disk, or lost, which is said."""
    flags = "--fsdp --max_steps 2 --save_interval 0 --save_path run --quiet"
    with full_disk(1 << 20):
        said = failed(
            flags, "--save_path run: the trained policy could not be written: File too large (", "there is no"
        )
    assert "warning: the state after step 2 is lost as well: --ckpt_path run/checkpoints: " in said
    assert files(here / "run") == {"logs/run.json", "logs/metrics.jsonl"}
    ended = train(f"{flags} --load_checkpoint --save_steps 1")
    assert ended.code == 0 and "no checkpoint in run/checkpoints: starting fresh" in ended.out
    assert (here / "run/logs/metrics.jsonl.old").is_file()
    assert [row["step"] for row in rows(here / "run")] == [1, 2]


def test_a_disk_that_is_full_from_the_start(here, full_disk):
    with full_disk(100):
        failed(
            "--fsdp --max_steps 1 --save_path run --quiet", "--save_path run", "run.json could not be written", "room"
        )
    assert not files(here / "run")
