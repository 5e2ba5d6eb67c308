"""The counting example: what comes of looking is learned, and not without; its samples show their images."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from statistics import fmean

import pytest
from PIL import Image
from runs import ROOT, Ended, all_rows, call, read_json, samples

sys.path.insert(0, str(ROOT / "examples"))
from tiny_shapes import make_model, make_processor, warm_start, write_data  # noqa: E402

sys.path.pop(0)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `python examples/tiny_shapes.py` makes, with fewer images."""
    folder = tmp_path_factory.mktemp("shapes")
    processor, model = make_processor(), make_model(seed=1)
    warm_start(model, processor, until=0.45, seed=1)
    processor.save_pretrained(folder / "model")
    model.save_pretrained(folder / "model")
    write_data(folder, train=2000, held_out=60, seed=1)
    return folder


def count(shapes: Path, rows: str, save_path: Path, flags: str) -> Ended:
    data = f"--pretrain {shapes}/model --prompt_data {shapes}/{rows}.jsonl --save_path {save_path}"
    config = f"--config {ROOT}/examples/tiny_shapes.yaml {data} --fsdp --quiet --plot_every 0"
    return call(shlex.split(f"{config} {flags}"), "vision")


def rewards(save_path: Path) -> tuple[float, float]:
    """Of the first and of the last twenty steps."""
    found = [row["reward/mean"] for row in all_rows(save_path)]
    return fmean(found[:20]), fmean(found[-20:])


def test_it_learns_by_looking_and_the_control_does_not(shapes: Path, tmp_path: Path):
    for rows in ("train", "shuffled"):
        assert count(shapes, rows, tmp_path / rows, "--max_steps 80").code == 0
    first, last = rewards(tmp_path / "train")
    assert 0.4 < first < last - 0.06
    assert max(rewards(tmp_path / "shuffled")) < 0.25


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_learns_on_each_seed(shapes: Path, tmp_path: Path, seed: int):
    for rows in ("train", "shuffled"):
        flags = f"--seed {seed} --eval_data {shapes}/eval.jsonl"
        assert count(shapes, rows, tmp_path / rows, flags).code == 0
    after = [read_json(tmp_path / rows / "summary.json")["eval"]["after"]["accuracy"] for rows in ("train", "shuffled")]
    assert rewards(tmp_path / "train")[1] > 0.75 and after[0] > 0.75
    assert max(rewards(tmp_path / "shuffled")) < 0.25 and after[1] < 0.4


def test_saved_samples_and_trackers_show_the_images(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("WANDB_MODE", "offline")
    shown = f"--save_trajectories --num_trajectories_to_save 20 --use_tensorboard {tmp_path}/tb --use_wandb shapes"
    ended = count(shapes, "train", tmp_path / "run", f"--max_steps 2 {shown}")
    assert ended.code == 0 and "warning" not in ended.err, ended.err
    folder, found = tmp_path / "run/logs/trajectories", samples(tmp_path / "run")
    assert len(found) == 40 and len({sample["prompt_id"] for sample in found}) == 4, (
        "16 samples of a prompt, and 4 more"
    )
    asked = {sample["prompt_id"]: sample["messages"][0]["content"][1]["text"] for sample in found}
    assert all(text.startswith("How many ") for text in asked.values())
    rows = {image: Image.open(shapes / image).tobytes() for image in {f"images/train_{n:04d}.png" for n in range(2000)}}
    for sample in found:
        (name,) = sample["images"]
        assert name == f"images/{sample['prompt_id']}_0.png" and Image.open(folder / name).tobytes() in rows.values()
    board = EventAccumulator(f"{tmp_path}/tb")
    board.Reload()
    first = found[0]
    (image, later) = board.Images("samples/1/image_1")
    assert image.encoded_image_string == (folder / first["images"][0]).read_bytes() and later.step == 2
    text = board.Tensors("samples/1/text_summary")[0].tensor_proto.string_val[0].decode()
    assert asked[first["prompt_id"]] in text and f"**reward** {first['reward']['total']:g}" in text
    staged = (tmp_path / "run/logs/wandb/artifacts/staging").iterdir()
    assert {Image.open(path).size for path in staged if b"PNG" in path.read_bytes()[:4]} == {(32, 32)}
