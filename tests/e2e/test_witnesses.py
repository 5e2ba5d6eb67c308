"""The mutation test: every flag declares a small run in which setting it shows (`Witness`), and here it has to.

A flag that is accepted and ignored cannot pass. Base runs are shared by all witnesses with the same one.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from flags_over import flags_over
from peft import LoraConfig, get_peft_model
from PIL import Image
from runs import REWARDS, Ended, all_rows, call, files, read_json, rows
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoProcessor
from vision_models import save_questions, save_tiny
from wandb_files import wandb_run

from lightrft.args.field import Witness
from lightrft.args.surface import FLAGS

BASE = """--pretrain tiny --prompt_data add.jsonl --eval_data eval.jsonl --reward_fn last_number --save_path {save_path}
 --prompt_max_len 16 --max_len 24 --rollout_batch_size 4 --n_samples_per_prompt 4 --train_batch_size 16
 --micro_train_batch_size 8 --actor_learning_rate 1e-3 --max_steps 2 --plot_every 0 --fsdp --quiet"""
PROMPTS = 12  # an episode is three steps

CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}+="
REMOTE = """
from transformers import Qwen2Config, Qwen2ForCausalLM


class RemoteConfig(Qwen2Config):
    model_type = "tiny_remote"


class RemoteForCausalLM(Qwen2ForCausalLM):
    config_class = RemoteConfig
"""


@dataclass(frozen=True)
class Run:
    """A run that has ended, and where it was told to write."""

    ended: Ended
    folder: Path

    def see(self, seen: str) -> Any:
        """What a witness looks at, in a form that is equal for two equal runs."""
        kind, _, key = seen.partition(":")
        look: dict[str, Callable[[], Any]] = {
            "metrics": lambda: rows(self.folder),
            "perf": lambda: [row[f"perf/{key}"] for row in all_rows(self.folder)],
            "model": lambda: load_file(self.folder / "model.safetensors"),
            "average": lambda: load_file(self.folder / "ema" / "model.safetensors"),
            "files": lambda: files(self.folder) if self.folder.exists() else set(),
            "output": lambda: _timeless(self.ended.out).replace(self.folder.name, "run"),
            "summary": lambda: read_json(self.folder / "summary.json"),
            "trajectories": lambda: [path.read_text() for path in self.folder.glob("logs/trajectories/*.jsonl")],
            "wandb": lambda: wandb_run(self.folder),
            "run": lambda: read_json(self.folder / "logs" / "run.json")["runtime"],
        }
        return look[kind]()


def differ(seen: str, left: Any, right: Any) -> bool:
    """By more than rounding, which micro-batches alone bring about: else it would witness for flags that do nothing."""
    if seen == "metrics":
        return len(left) != len(right) or any(_rows_differ(a, b) for a, b in zip(left, right, strict=True))
    if seen in ("model", "average"):
        return any(float((left[name] - right[name]).abs().max()) > 1e-5 for name in left)
    return left != right


def _rows_differ(left: dict[str, float], right: dict[str, float]) -> bool:
    pairs = [(left[name], right[name]) for name in left.keys() & right.keys()]
    return left.keys() != right.keys() or any(abs(a - b) > max(1e-6, 1e-3 * abs(a)) for a, b in pairs)


def _timeless(text: str) -> str:
    text = re.sub(r"[\d.,]+ [GM]B are free", "some GB are free", text)
    return re.sub(r"\d+ tokens/s \| [\d.]+ s/step \| [\d:]+ left", "speed", text)


class Workshop:
    """Runs argument lists in one folder and keeps the base runs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count, self.kept = folder, 0, {}

    def run(self, flags: list[str]) -> Run:
        self.count += 1
        name = f"run{self.count}"
        return Run(call([word.replace("{save_path}", name) for word in flags]), self.folder / name)

    def base(self, witness: Witness) -> Run:
        flags = base_flags(witness)
        if tuple(flags) not in self.kept:
            self.kept[tuple(flags)] = self.run(flags)
        return self.kept[tuple(flags)]


def base_flags(witness: Witness) -> list[str]:
    left_out, kept, keep = witness.without.split(), [], True
    for word in BASE.split():
        keep = word not in left_out if word.startswith("--") else keep
        kept += [word] if keep else []
    return flags_over(" ".join(kept), witness.given)


@pytest.fixture(scope="module")
def workshop(tiny_folder: Path, tmp_path_factory):
    """What the witnesses name: data, rewards, an adapter, six models, one with a value head, one that sees."""
    folder = tmp_path_factory.mktemp("witnesses")
    for source, name, count in (("train", "add", PROMPTS), ("eval", "eval", None)):
        lines = (tiny_folder / f"{source}.jsonl").read_text().splitlines()[:count]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    good, bad = (folder / "add.jsonl").read_text(), '{"question": "1+1="}\n'
    (folder / "mixed.jsonl").write_text(good + bad)
    (folder / "both.jsonl").write_text("".join(_with_other_columns(line) for line in good.splitlines()))
    pictures = ({**json.loads(line), "images": ["a.png"]} for line in good.splitlines())
    (folder / "pictures.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pictures))
    (folder / "other.yaml").write_text("seed: 7\n")
    (folder / "shaped.py").write_text(REWARDS)
    names = ("tiny", "tiny_other", "tiny_chat", "tiny_critic", "tiny_remote", "hub/models--tests--tiny/snapshots/0123")
    for name in names:
        shutil.copytree(tiny_folder / "model", folder / name)
    _reseed(folder / "tiny_other")
    whole = folder / "tiny_critic/model.safetensors"
    save_file({**load_file(whole), "score.weight": torch.linspace(-1, 1, 128)[None]}, whole, {"format": "pt"})
    _save_adapter(folder / "tiny", folder / "tiny_adapter")
    _edit(folder / "tiny_chat/tokenizer_config.json", chat_template=CHAT_TEMPLATE)
    save_tiny("qwen2_vl", folder / "tiny_vision")
    processor = AutoProcessor.from_pretrained(folder / "tiny_vision")
    processor.image_processor.size = {"shortest_edge": 28 * 28, "longest_edge": 28 * 28}
    processor.save_pretrained(folder / "other_processor")
    save_questions(folder / "add.jsonl", folder, PROMPTS)
    _write_other_media(folder)
    (folder / "tiny_remote/modeling_remote.py").write_text(REMOTE)
    classes = {"AutoConfig": "RemoteConfig", "AutoModelForCausalLM": "RemoteForCausalLM"}
    auto_map = {auto: f"modeling_remote.{name}" for auto, name in classes.items()}
    _edit(folder / "tiny_remote/config.json", model_type="tiny_remote", auto_map=auto_map)
    (folder / "hub/models--tests--tiny/refs").mkdir()
    (folder / "hub/models--tests--tiny/refs/main").write_text("0123")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("WANDB_MODE", "offline")
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(folder / "modules"))
        patch.syspath_prepend(str(folder / "modules"))
        yield Workshop(folder)


def _with_other_columns(line: str) -> str:
    """Another question, another answer and a place in columns of their own."""
    row = json.loads(line)
    return json.dumps({**row, "question": f"1+{row['prompt']}", "other": "1", "where": "here"}) + "\n"


def _write_other_media(folder: Path) -> None:
    """Rows with two images; with a video of two seconds."""
    seen = [json.loads(line) for line in (folder / "seen.jsonl").read_text().splitlines()]
    frames = [Image.new("L", (56, 56), 30 * index) for index in range(8)]
    frames[0].save(folder / "clip.gif", save_all=True, append_images=frames[1:], duration=250)
    others = {
        "pairs": [{**row, "images": row["images"] * 2} for row in seen],
        "clips": [{**row, "images": [], "videos": ["clip.gif"]} for row in seen],
    }
    for name, listed in others.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in listed))


def _save_adapter(model: Path, folder: Path) -> None:
    """Of two layers, in which it changes something."""
    config = LoraConfig(r=2, target_modules=["v_proj"], init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(model), config).save_pretrained(folder)


def _edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**read_json(path), **changes}))


def _reseed(folder: Path) -> None:
    """The same model with its weights a little larger."""
    weights = load_file(folder / "model.safetensors")
    save_file({name: 1.05 * value for name, value in weights.items()}, folder / "model.safetensors", {"format": "pt"})


def _case(name: str) -> Any:
    witness = FLAGS[name].record.witness
    marks = [pytest.mark.gpu] if witness is not None and witness.seen == "gpu" else []
    return pytest.param(name, marks=marks)


@pytest.mark.parametrize("name", [_case(name) for name in FLAGS])
def test_the_flag_shows(workshop, name):
    witness = FLAGS[name].record.witness
    assert witness is not None, f"--{name} declares no witness"
    base = workshop.base(witness)
    assert base.ended.code == 0, base.ended.err
    changed = workshop.run(flags_over(" ".join(base_flags(witness)), witness.change))
    if witness.seen == "refused":
        assert changed.ended.code == 2, changed.ended.out
        assert f"--{name}" in changed.ended.err or "--config" in witness.change, changed.ended.err
        assert not changed.folder.exists()
    else:
        assert changed.ended.code == 0, changed.ended.err
        seen = "run" if witness.seen == "gpu" else witness.seen
        assert differ(seen, changed.see(seen), base.see(seen)), f"{witness.change} changes no {seen}"


def test_equal_runs_look_equal(workshop):
    """Without this, a witness could be satisfied by a clock or a path."""
    flags = [*BASE.split(), "--no-quiet", "--save_steps", "1", "--plot_every", "1", "--eval_steps", "1"]
    first, second = workshop.run(flags), workshop.run(flags)
    assert first.ended.code == second.ended.code == 0
    for seen in ("metrics", "model", "files", "output", "summary", "run", *PERF):
        assert not differ(seen, first.see(seen), second.see(seen)), seen


WITNESSES = [flag.record.witness for flag in FLAGS.values() if flag.record.witness]
PERF = sorted({each.seen for each in WITNESSES if each.seen.startswith("perf:") and "--pretrain" not in each.given})
