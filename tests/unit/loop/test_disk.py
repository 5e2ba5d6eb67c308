"""What the checkpoints of a run take, by hand: bytes a parameter, and how many stand at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lightrft.args import parse
from lightrft.loop import disk
from lightrft.loop.disk import Need, disk_need, size_text

BASE = "--pretrain tiny --prompt_data a.jsonl --reward_fn exact --rollout_batch_size 4 --train_batch_size 16"
MILLION = 10**6


@pytest.fixture(autouse=True)
def _sizes(monkeypatch: pytest.MonkeyPatch, tmp_path_factory):
    """A policy of one million parameters in two files of 1 and 2 MB, a critic of two million."""
    files = [tmp_path_factory.mktemp("given") / name for name in "ab"]
    for size, file in enumerate(files, 1):
        file.write_bytes(bytes(size * MILLION))
    monkeypatch.setattr(disk, "weight_files", lambda model: files)
    monkeypatch.setattr(disk, "count_parameters", lambda model: MILLION)
    monkeypatch.setattr(disk, "count_critic", lambda model: 2 * MILLION)


@pytest.mark.parametrize(
    "text, each",
    [
        ("", 12),  # a weight and two moments, in float32
        ("--fsdp --bf16", 12),
        ("--zero_stage 2 --bf16", 12),
        ("--optimizer sgd", 4),
        ("--save_hf_ckpt", 15),
        ("--advantage_estimator gae --critic_pretrain critic", 36),
        ("--enable_ema --advantage_estimator gae --critic_pretrain critic", 40),  # of the policy alone
        ("--enable_ema --save_hf_ckpt", 12 + 4 + 2 * 3),
    ],
)
def test_bytes_a_parameter(text: str, each: int, tmp_path: Path):
    need = disk_need(parse(f"{BASE} --save_path {tmp_path}/out {text}".split()), 10, 5, torch.float32)
    models = 2 if "--enable_ema" in text else 1
    assert (need.checkpoint, need.model) == (each * MILLION, models * 3 * MILLION)


@pytest.mark.parametrize(
    "text, given, millions",
    [
        ("--no-bf16", torch.float32, 0.4 * 12 + 0.6 * 4),
        ("--optimizer sgd", torch.float32, 4),
        ("--fsdp --bf16", torch.bfloat16, 0.4 * 12 + 0.6 * 4),
        ("--bf16", torch.bfloat16, 0.4 * 12 + 0.6 * 2),
        ("--enable_ema --no-bf16", torch.float32, 0.4 * (12 + 4) + 0.6 * 4),
        ("--no-bf16 --advantage_estimator gae --critic_pretrain critic", torch.float32, 0.4 * 12 + 0.6 * 4 + 2 * 12),
    ],
)
def test_what_does_not_train_is_a_weight_alone(
    text: str, given: torch.dtype, millions: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """0.6 of the policy's million are frozen; the critic's two million train. DeepSpeed keeps weights as given."""
    monkeypatch.setattr(disk, "count_frozen", lambda model: 600_000)
    monkeypatch.setattr(disk, "dtype_to_train", lambda model, compute: given)
    need = disk_need(parse(f"{BASE} --save_path {tmp_path}/out {text}".split()), 10, 5, torch.float32)
    assert need.checkpoint == pytest.approx(millions * MILLION, rel=1e-12)


@pytest.mark.parametrize(
    "text, most",
    [
        ("--save_steps 1", 4),  # three are kept while the fourth is written
        ("--save_steps 1 --max_ckpt_num 1", 2),
        ("--save_steps 5 --save_interval 0", 2),
        ("--save_steps 10 --save_interval 0", 1),
        ("--save_interval 0", 0),
        ("", 2),  # ten steps of five an episode
        ("--save_interval 2", 1),
    ],
)
def test_how_many_stand_at_once(text: str, most: int, tmp_path: Path):
    need = disk_need(parse(f"{BASE} --save_path {tmp_path}/a/b {text}".split()), 10, 5, torch.float32)
    assert need.most == most and need.free > 0
    assert need.folder == (f"{tmp_path}/a/b/checkpoints" if most else f"{tmp_path}/a/b"), "where they are written"


def test_lines_and_shortage():
    need = Need(checkpoint=16e9, model=2e9, most=4, folder="out/checkpoints", free=66e9)
    assert need.total == 66e9 and need.shortage() is None
    assert need.line() == (
        "checkpoints in out/checkpoints: at most 3 of about 16 GB and one that is being written, the model 2 GB; "
        "66 GB are free there"
    )
    assert Need(16e9, 2e9, 1, "c", 65e9).line() == (
        "checkpoints in c: at most 1 of about 16 GB, the model 2 GB; 65 GB are free there"
    )
    assert Need(16e9, 1.62e6, 0, "out", 65e9).line() == (
        "no checkpoints; the model takes about 1.62 MB in out, on whose disk 65 GB are free"
    )
    assert Need(16e9, 2e9, 4, "c", 65e9).shortage() == (
        "4 checkpoints of about 16 GB and the model need 66 GB, and 65 GB are free at c; lower --max_ckpt_num, save "
        "less often, or choose another --ckpt_path"
    )
    assert Need(16e9, 2e9, 0, "out", 1e9).shortage() == (
        "the model needs 2 GB, and 1 GB are free at out; make room, or choose another --save_path"
    )


def test_sizes_in_three_digits():
    sizes = (1234, 1.62e6, 999.4e6, 999.6e6, 71.08e9, 999.4e9, 7_112e9)
    shown = ["0.00123 MB", "1.62 MB", "999 MB", "1 GB", "71.1 GB", "999 GB", "7,112 GB"]
    assert [size_text(size) for size in sizes] == shown
