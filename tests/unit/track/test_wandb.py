"""What can go wrong around W&B. What it receives is read back in tests/e2e (wandb_files.py)."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import time
from types import SimpleNamespace

import psutil
import pytest
from PIL import Image

from lightrft.errors import Refused
from lightrft.track.base import Loggers
from lightrft.track.wandb import WandB, check, is_whole, run_id

KEY = "0123456789abcdef0123456789abcdef01234567"
OFF = "warning: WandB failed and is off from now on ("


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "offline")


def flags(folder=".", **changes):
    return SimpleNamespace(
        **{"use_wandb": "sums", "wandb_org": None, "wandb_run_name": None, "save_trajectories": False, **changes},
        log_dir=folder,
    )


# Before the run


@pytest.mark.parametrize("mode", ["offline", "disabled", "dryrun"])
def test_without_a_network_no_key_is_needed(monkeypatch, mode):
    monkeypatch.setenv("WANDB_MODE", mode)
    check(flags())


@pytest.mark.parametrize("mode", [None, "online"])
def test_online_needs_a_key_from_the_environment(monkeypatch, mode):
    monkeypatch.delenv("WANDB_MODE")
    if mode:
        monkeypatch.setenv("WANDB_MODE", mode)
    check(flags(use_wandb=None))
    with pytest.raises(Refused, match="^--use_wandb sums: there is no key; set WANDB_API_KEY, or WANDB_MODE=offline$"):
        check(flags())
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    check(flags())


@pytest.mark.parametrize("flag", ["use_wandb", "wandb_org"])
@pytest.mark.parametrize(
    "key", [KEY, KEY.upper(), f"local-{KEY}", f" {KEY}", "wandb_v1_Ab3dEf_6hIj", "A1" * 43, f"sums/{KEY}"]
)
def test_a_key_in_a_flag_is_refused_and_not_shown(flag, key):
    with pytest.raises(Refused, match=f"^--{flag} got what looks like an API key; set WANDB_API_KEY") as refused:
        check(flags(**{flag: key}))
    assert key.strip() not in str(refused.value) and "\n" not in str(refused.value)


def test_a_run_may_have_the_name_of_a_commit_and_not_that_of_a_key():
    check(flags(wandb_run_name=KEY))
    with pytest.raises(Refused, match="^--wandb_run_name got what looks like an API key"):
        check(flags(wandb_run_name="wandb_v1_Ab3dEf_6hIj"))


@pytest.mark.parametrize(
    "name", ["sums", "my-project", "run_2026-11-21", "deadbeef", "a" * 63, "Rechnen für alle", "v1.2"]
)
def test_ordinary_names_are_no_keys(name):
    check(flags(use_wandb=name, wandb_run_name=name))


@pytest.mark.parametrize("name", ["", "a/b", "a#b", "100%", "a-" * 65])
def test_what_is_no_project_is_refused(name):
    with pytest.raises(Refused, match="is no W&B project"):
        check(flags(use_wandb=name))


def test_without_wandb_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr("lightrft.track.wandb.find_spec", lambda name: None)
    with pytest.raises(Refused, match="wandb is not installed: `pip install wandb`"):
        check(flags())


def test_the_id_of_a_run_is_kept_for_its_resumption(tmp_path):
    first = run_id(tmp_path, 0)
    assert run_id(tmp_path, 3) == first == run_id(tmp_path, 4)
    second = run_id(tmp_path, 0)
    assert second != first and run_id(tmp_path, 1) == second


# During the run


def services():
    return [child for child in psutil.Process().children() if child.name() == "wandb-core"]


@pytest.fixture
def started(tmp_path):
    """() -> loggers with W&B as their only one; `patience` in seconds."""

    def start(patience=20.0):
        loggers = Loggers()
        loggers.add(WandB, flags(str(tmp_path)), 0, "first", {"seed": 1}, print, patience)
        return loggers

    return start


def wait_for(condition):
    end = time.monotonic() + 30
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return found


def the_log(folder):
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    return path


def test_the_end_leaves_a_whole_log_and_no_process(tmp_path, started, warnings):
    loggers = started()
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    for step in range(200):
        loggers.metrics({f"a{number}": step * number / 7 for number in range(40)}, step)
    loggers.close()
    assert not warnings() and not services()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    content = the_log(tmp_path).read_bytes()
    assert len(content) > 3 << 15 and is_whole(the_log(tmp_path))  # several blocks
    for end in (0, 5, 7, 10, 1 << 15, (1 << 15) + 3, len(content) // 2, len(content) - 1):
        (tmp_path / "cut").write_bytes(content[:end])
        assert not is_whole(tmp_path / "cut"), end


def test_samples_are_a_table_of_their_step_with_images(tmp_path, shown_samples, warnings):
    loggers = Loggers()
    loggers.add(WandB, flags(str(tmp_path), save_trajectories=True), 0, "first", {}, print, 20.0)
    loggers.evaluated({"eval/accuracy": 0.5})
    for step in (1, 2):
        loggers.metrics({"reward/mean": 0.5}, step)
        loggers.rollouts([], shown_samples, step)
    loggers.close()
    assert not warnings()
    logged = the_log(tmp_path).parent.glob("files/media/table/samples_*.table.json")
    assert sorted(path.name.split("_")[1] for path in logged) == ["1", "2"]
    kept = [path.read_bytes() for path in (tmp_path / "wandb/artifacts/staging").iterdir()]
    table = next(json.loads(content) for content in kept if content.startswith(b"{"))
    assert table["columns"] == ["prompt", "image_1", "image_2", "response", "reward", "exact"]
    first, second, plain = table["data"]
    assert [first[0], *first[3:]] == ["user: <image><image>How *many*?", "# 3", 1.0, 1.0] and second[3] == "4\n<b>"
    assert [(image["width"], image["height"]) for image in first[1:3]] == [(8, 6), (4, 4)]
    assert plain[1:] == [None, None, "x", None, None]
    assert {Image.open(io.BytesIO(content)).size for content in kept if b"PNG" in content[:4]} == {(8, 6), (4, 4)}
    assert "WANDB_DATA_DIR" not in os.environ


def test_a_killed_service_is_reported_once(started, warnings):
    loggers = started()
    loggers.metrics({"a": 1.0}, 1)
    wait_for(services)[0].kill()
    step = 1
    while not (found := warnings()):
        step += 1
        assert step < 2000
        loggers.metrics({"a": 1.0}, step)
        time.sleep(0.01)
    loggers.metrics({"a": 1.0}, step + 1)
    loggers.close()
    assert len(found) == 1 and found[0].startswith(OFF) and not warnings()


def test_a_stuck_service_holds_up_neither_the_steps_nor_the_end(started, warnings):
    loggers = started(patience=0.5)
    loggers.metrics({"a": 1.0}, 1)
    (service,) = wait_for(services)
    service.send_signal(signal.SIGSTOP)
    start = time.monotonic()
    for step in range(2, 500):
        loggers.metrics({f"a{number}": 1.0 for number in range(100)}, step)  # more than a socket takes
    assert time.monotonic() - start < 0.5
    loggers.close()
    assert time.monotonic() - start < 5
    (line,) = warnings()
    assert line.startswith(f"{OFF}TimeoutError: no end after 0.5 s; `wandb sync`")
    assert not service.is_running() or service.status() == psutil.STATUS_ZOMBIE


def test_a_network_that_never_answers_holds_up_nothing(started, monkeypatch, warnings):
    with socket.create_server(("127.0.0.1", 0)) as hole:
        monkeypatch.setenv("WANDB_MODE", "online")
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{hole.getsockname()[1]}")
        start = time.monotonic()
        loggers = started(patience=1.0)
        loggers.metrics({"a": 1.0}, 1)
        assert time.monotonic() - start < 1
        loggers.close()
        assert time.monotonic() - start < 6
    found = [line for line in warnings() if line.startswith("warning:")]
    assert len(found) == 1 and found[0].startswith(f"{OFF}TimeoutError: ") and KEY not in found[0]


def test_a_full_disk_is_reported_once(started, full_disk, warnings):
    """By its log, which is cut short; or, where the service dies of it before, by that."""
    with full_disk(20_000):
        loggers = started()
        for step in range(100):
            loggers.metrics({f"a{number}": step * number / 7 for number in range(40)}, step)
        loggers.close()
    found = [line for line in warnings() if line.startswith("warning:")]
    assert len(found) == 1 and found[0].startswith(OFF)
    assert "is the disk full?" in found[0] or "MailboxClosedError" in found[0]
