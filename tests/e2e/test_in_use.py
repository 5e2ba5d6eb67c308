"""A second run in a folder of one that is still there."""

from __future__ import annotations

import re
import socket

from runs import files, start, train, wait_for_steps

from lightrft.loop import lock


def test_a_second_run_is_refused_and_a_killed_one_hinders_nobody(here, monkeypatch):
    flags = "--fsdp --max_steps 40 --save_steps 1 --reward_fn shaped.py:slow --quiet"
    process = start(f"{flags} --save_path run", here)
    wait_for_steps(process, here / "run", 1)
    who = f"is in use by process {process.pid} on {socket.gethostname()}; wait until that run ends, or choose another"
    for more, flag in (
        ("--save_path run", "save_path run"),
        ("--save_path run --load_checkpoint", "save_path run"),
        ("--save_path run --load_checkpoint --dry_run", "save_path run"),
        ("--save_path other --log_dir run/logs", "log_dir run/logs"),
        ("--save_path other --ckpt_path run/checkpoints --load_checkpoint", "ckpt_path run/checkpoints"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(lock, "PATIENCE_S", 0.1)
            ended = train(f"{flags} {more}")
        assert ended.code == 2 and ended.problems == [f"error: --{flag} {who} --{flag.split()[0]}"], ended
    assert process.poll() is None and not (here / "other").exists()
    process.kill()
    resumed = train(f"{flags} --save_path run --load_checkpoint --max_steps 4")  # the killed one may be dying yet
    assert resumed.code == 0 and re.search(r"resumed from step \d+ ", resumed.out), resumed
    process.communicate()
    assert not [name for name in files(here / "run") if name.endswith(".lock")]
