"""Volumes with a bright ellipsoid in noise, as .npy files [slices, height, width], and rows that ask where it lies.

    python examples/volumes/make_volumes.py --out outputs/volumes

writes `volumes/*.npy`, `train.jsonl` and `eval.jsonl`. A row's label is what `--reward_fn volume_localisation`
compares with: the box in voxels, its ends one beyond the last voxel; the slice with most bright voxels, the first of
several; and the share of all voxels that are bright.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

PROMPT = (
    "<{kind}>The slices of a scan, from 0 to {last}. Where is the bright tumour? Think about the slices between "
    '<think> and </think>, then write <answer>{{"bbox_3d": [x1, y1, z1, x2, y2, z2], "peak_slice": z, '
    '"tumor_ratio": r}}</answer>: the box in voxels, its ends one beyond the last voxel; the slice where the tumour '
    "is largest; and the share of all voxels that it fills."
)
NOISE, TISSUE, TUMOUR = 15, 75, 225  # standard deviation, and brightness, of 0 to 255


def make_volume(shape: tuple[int, int, int], random: np.random.Generator) -> tuple[np.ndarray, dict[str, Any]]:
    """The volume [slices, height, width] in uint8, and its label."""
    inside = _ellipsoid(shape, random)
    noisy = np.where(inside, TUMOUR, TISSUE) + NOISE * random.standard_normal(shape)
    return noisy.clip(0, 255).astype(np.uint8), label_of(inside)


def label_of(inside: np.ndarray) -> dict[str, Any]:
    """Of the voxels [z, y, x] that are tumour, at least one."""
    places = np.argwhere(inside)[:, ::-1]  # as x, y, z
    return {
        "bbox_3d": [*places.min(0).tolist(), *(places.max(0) + 1).tolist()],
        "peak_slice": int(inside.sum((1, 2)).argmax()),
        "tumor_ratio": round(float(inside.mean()), 4),
    }


def _ellipsoid(shape: tuple[int, int, int], random: np.random.Generator) -> np.ndarray:
    """Its half axes are an eighth to a quarter of the volume's sides, at least one voxel."""
    sides = np.array(shape)
    halves = np.maximum(1.0, sides * random.uniform(1 / 8, 1 / 4, size=3))
    centre = random.uniform(halves, sides - halves) - 0.5
    offsets = (np.indices(shape).reshape(3, -1).T - np.round(centre)) / halves
    return ((offsets**2).sum(1) <= 1).reshape(shape)


def write_rows(folder: Path, name: str, count: int, shape: tuple[int, int, int], kind: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    prompt = PROMPT.format(kind=kind, last=shape[0] - 1)
    with (folder / f"{name}.jsonl").open("w") as rows:
        for number in range(count):
            volume, label = make_volume(shape, random)
            path = f"volumes/{name}_{number:04d}.npy"
            np.save(folder / path, volume)
            rows.write(json.dumps({"prompt": prompt, f"{kind}s": [path], "label": label}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Make volumes with a bright ellipsoid, and rows that ask where it is.")
    parser.add_argument("--out", type=Path, required=True, help="folder for volumes/, train.jsonl and eval.jsonl")
    parser.add_argument("--train", type=int, default=256, help="rows to train on")
    parser.add_argument("--held_out", type=int, default=64, help="rows to evaluate on")
    parser.add_argument("--shape", type=int, nargs=3, default=(16, 112, 112), help="slices, height, width")
    parser.add_argument("--kind", choices=("video", "image"), default="video", help="a video, or an image a slice")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    (args.out / "volumes").mkdir(parents=True, exist_ok=True)
    write_rows(args.out, "train", args.train, tuple(args.shape), args.kind, args.seed)
    write_rows(args.out, "eval", args.held_out, tuple(args.shape), args.kind, args.seed + 1_000_000)
    print(f"{args.out}: {args.train} volumes to train on, {args.held_out} held out")


if __name__ == "__main__":
    main()
