"""The volumes of examples/volumes: their labels fit what they show, and their settings are the document's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from lightrft.args import check, parse
from lightrft.rewards.rules import GROUPS

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "examples/volumes"))
from make_volumes import TISSUE, TUMOUR, label_of  # noqa: E402

sys.path.pop(0)

MAKE = [sys.executable, str(ROOT / "examples/volumes/make_volumes.py"), "--train", "3", "--held_out", "2"]


def test_a_label_worked_out_by_hand():
    inside = np.zeros((4, 5, 6), dtype=bool)  # z, y, x
    inside[1, 2, 3] = inside[2, 2, 3:5] = inside[3, 1, 3] = True
    assert label_of(inside) == {"bbox_3d": [3, 1, 1, 5, 3, 4], "peak_slice": 2, "tumor_ratio": round(4 / 120, 4)}


def test_volumes_and_rows_belong_together(tmp_path):
    subprocess.run([*MAKE, "--out", str(tmp_path), "--shape", "6", "20", "30", "--kind", "image"], check=True)
    for name, count in (("train", 3), ("eval", 2)):
        rows = [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        assert len(rows) == count
        for row in rows:
            volume, label = np.load(tmp_path / row["images"][0]), row["label"]
            assert (volume.shape, volume.dtype) == ((6, 20, 30), np.uint8) and row["prompt"].startswith("<image>")
            x1, y1, z1, x2, y2, z2 = label["bbox_3d"]
            bright = volume > (TISSUE + TUMOUR) / 2  # five deviations from either
            assert label_of(bright) == label and bright[z1:z2, y1:y2, x1:x2].sum() == bright.sum()
            text = f"<think>A slice.</think><answer>{json.dumps(label)}</answer>"
            judged = [rule.judge(text, label, None) for rule in GROUPS["volume_localisation"].values()]
            assert judged == [1.0] * 6


def test_the_settings_are_those_that_the_document_calls_used_and_a_flag_changes_one_weight():
    given = "--pretrain p --prompt_data d --save_path s --rollout_batch_size 4 --train_batch_size 32 --max_len 900"
    config = ["--config", str(ROOT / "examples/volumes/volumes.yaml"), "--prompt_max_len", "700"]
    args = parse([*given.split(), *config])
    assert not [notice for notice in check(args) if "reward" in str(notice)]
    algorithm, training = args.algorithm, args.training
    assert (algorithm.init_kl_coef, algorithm.use_kl_loss, algorithm.n_samples_per_prompt) == (5e-3, True, 8)
    assert (training.actor_learning_rate, training.max_norm, args.batch.micro_train_batch_size) == (1e-6, 200.0, 2)
    assert args.sampling.temperature == 1.0
    own = {name: rule.weight for name, rule in GROUPS["volume_localisation"].items()}
    assert dict(args.rewards.reward_weights) == own, "what the rules weigh without this file"
    other = parse([*given.split(), *config, "--reward_weights", "iou=2"])
    assert dict(other.rewards.reward_weights) == {"iou": 2.0}
