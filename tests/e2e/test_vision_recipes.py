"""The recipes for models that see: a large one is planned for eight GPUs without its weights; volumes run in small."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import children
import pytest
import transformers as hf
from runs import ROOT, all_rows, call, samples
from safetensors.torch import save_file
from vision_models import FAMILIES, IDS, save_tiny

PARTS = ["iou", "peak_slice", "tumor_ratio", "thinking_format", "video_keyword", "format"]
DEADLINE_S = 120
ENVIRONMENT = """
LIGHTRFT_ROOT=.
fresh_folder() {{ echo "$1"; }}
python() {{ {python} "$@"; }}
"""
SIZES = {  # Qwen/Qwen2.5-VL-7B-Instruct's
    "text_config": {
        **{"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28},
        **{"num_key_value_heads": 4, "vocab_size": 152064, "max_position_embeddings": 128000},
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    },
    "vision_config": {
        **{"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584},
        **{"patch_size": 14, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31]},
    },
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The examples, beside an env.sh that installs nothing."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    (tmp_path / "examples/env.sh").write_text(ENVIRONMENT.format(python=shlex.quote(sys.executable)))
    for name in ("train_vl.py", "lightrft"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def run(recipe: str, folder: Path, flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = children.environment()
    path = f"{ROOT}:{kept.get('PYTHONPATH', '')}"
    command = ["bash", f"examples/{recipe}.sh", *flags.split()]
    return subprocess.run(
        command,
        cwd=folder,
        env={**kept, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )


def large_model(folder: Path) -> Path:
    """Qwen2.5-VL-7B as far as a plan looks at it: its configuration, a processor, and a file without weights."""
    small, processor = FAMILIES["qwen2_5_vl"](1)
    processor.save_pretrained(folder)
    sizes: dict[str, Any] = SIZES
    config = hf.Qwen2_5_VLConfig(**sizes, **{name: getattr(small, name) for name in IDS})
    config.architectures = ["Qwen2_5_VLForConditionalGeneration"]
    config.save_pretrained(folder)
    save_file({}, folder / "model.safetensors")
    return folder


def test_the_recipe_for_7b_fits_eight_gpus(checkout: Path, tmp_path: Path):
    from PIL import Image

    Image.new("RGB", (200, 120)).save(tmp_path / "a.png")
    row = {"problem": "<image>Find x.", "images": ["a.png"], "answer": "5"}
    (tmp_path / "rows.jsonl").write_text(f"{json.dumps(row)}\n" * 128)
    given = {"MODEL": str(large_model(tmp_path / "7b")), "DATA": "rows.jsonl"}
    done = run("vision/qwen2_5_vl_7b", checkout, "--dry_run --assume_gpus 8x80GB", **given)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith(("error", "notice"))]
    assert not said and "processes 8, strategy deepspeed ZeRO-3, device 8 x 80 GB GPU (assumed)" in done.stdout
    assert "engine vllm (asked for)" in done.stdout and "<|image_pad|><|vision_end|>Find x." in done.stdout
    assert "weights, gradients and optimizer take 37.3 GB (weights 2.07, " in done.stdout, "8.29 billion parameters"
    assert not (tmp_path / "outputs").exists()


def test_volumes_are_learned_from(checkout: Path):
    model = save_tiny("llava", checkout / "tiny")
    make = [sys.executable, "examples/volumes/make_volumes.py", "--out", "small", "--shape", "4", "28", "28"]
    subprocess.run([*make, "--train", "4", "--held_out", "2", "--kind", "image"], cwd=checkout, check=True)
    flags = (
        "--rollout_batch_size 2 --train_batch_size 16 --max_steps 1 --prompt_max_len 490 --max_new_tokens 8 "
        "--max_len 512 --fsdp --save_interval 0 --save_path run --reward_weights iou=2"
    )
    done = run("volumes/volumes", checkout, flags, MODEL=str(model), KIND="image", START="small")
    assert done.returncode == 0, done.stderr
    weights = "2 x iou + 1 x peak_slice + 1 x tumor_ratio + 0.5 x thinking_format + 0.5 x video_keyword + 0.5 x format"
    assert f"reward {weights}" in done.stdout and "0.005 x KL to the reference (k3) in the loss, fixed" in done.stdout
    (row,) = all_rows(checkout / "run")
    assert [row[f"reward/{part}"] for part in PARTS] == [0.0] * 6, "eight random bytes are no answer"
    assert [len(sample["images"]) for sample in samples(checkout / "run")] == [4] * 10, "a picture of each slice"


def test_a_plan_of_volumes_leaves_none_behind(checkout: Path):
    """63 MB of them were left in outputs/, where nothing had run."""
    (checkout / "there").mkdir()
    given = {"MODEL": str(save_tiny("llava", checkout / "tiny")), "KIND": "image", "TMPDIR": str(checkout / "there")}
    before = {*checkout.iterdir()}
    done = run(
        "volumes/volumes",
        checkout,
        "--assume_gpus 8x80GB --prompt_max_len 490 --max_new_tokens 8 --max_len 512",
        **given,
    )
    assert done.returncode == 0, done.stderr
    assert "data 256 prompts, 64 held out" in done.stdout
    assert {*checkout.iterdir()} == before and not [*(checkout / "there").iterdir()]


def test_a_first_prompt_whose_image_is_too_large_is_left_out_like_any_other(checkout: Path, monkeypatch):
    monkeypatch.chdir(checkout)
    save_tiny("llava", checkout / "tiny")
    make = [sys.executable, "examples/volumes/make_volumes.py", "--held_out", "0", "--kind", "image"]
    subprocess.run([*make, "--train", "1", "--shape", "40", "28", "28", "--out", "deep"], check=True)
    subprocess.run([*make, "--train", "4", "--shape", "4", "28", "28", "--out", "flat"], check=True)
    flags = (
        "--pretrain tiny --prompt_data deep/train.jsonl flat/train.jsonl --reward_fn volume_localisation --fsdp "
        "--rollout_batch_size 2 --n_samples_per_prompt 2 --train_batch_size 4 --max_steps 2 --prompt_max_len 490 "
        "--max_new_tokens 8 --max_len 512 --save_interval 0 --plot_every 0 --save_path run"
    )
    assert call([*flags.split(), "--on_bad_row", "skip", "--dry_run"], "vision").code == 0
    done = call([*flags.split(), "--on_bad_row", "skip"], "vision")
    assert done.code == 0 and "finished 2 steps" in done.out
    alone = call(
        [
            *flags.replace("flat/train.jsonl", "").replace("path run", "path other").split(),
            "--on_bad_row",
            "skip",
            "--dry_run",
        ],
        "vision",
    )
    assert alone.code == 2 and len(alone.problems) == 1 and "no row of this source is good" in alone.err
