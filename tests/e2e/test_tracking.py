"""What a run tells its trackers, read back with their own readers; W&B's own troubles are in test_wandb_runs.py."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
from PIL import Image
from runs import REWARDS, all_rows, files, read_json, rows, train
from wandb_files import WandbRun, wandb_runs, warnings

from lightrft.loop.state_file import own_sum

COMMON = "--fsdp --eval_steps 2 --save_steps 3 --reward_fn shaped.py:length --use_kl_loss --init_kl_coef 0.01"
TRACKED = f"{COMMON} --use_wandb counting --use_tensorboard all/tb --save_trajectories --save_path all"
FIRST = "--max_steps 5 --plot_every 2 --num_trajectories_to_save 16 --profile_steps 2 4"
SECOND = "--max_steps 6 --plot_every 5 --num_trajectories_to_save 3 --load_checkpoint"


@dataclass(frozen=True)
class Tracked:
    """A run of five steps with every tracker on, and its resumption from step 3, which ends at step 6."""

    folder: Path
    first: Any
    second: Any
    first_rows: list[dict[str, Any]]
    first_files: set[str]

    @property
    def path(self) -> Path:
        return self.folder / "all"


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")


@pytest.fixture(scope="module")
def tracked(tiny_folder: Path, tmp_path_factory) -> Iterator[Tracked]:
    folder = tmp_path_factory.mktemp("tracking")
    (folder / "tiny").symlink_to(tiny_folder / "model")
    (folder / "add.jsonl").symlink_to(tiny_folder / "train.jsonl")
    (folder / "eval.jsonl").symlink_to(tiny_folder / "eval.jsonl")
    (folder / "shaped.py").write_text(REWARDS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("WANDB_MODE", "offline")
        first = train(f"{TRACKED} {FIRST}")
        kept, left = all_rows(folder / "all"), files(folder / "all")
        second = train(f"{TRACKED} {SECOND}")
        yield Tracked(folder, first, second, kept, left)


def test_the_tracked_run_is_sound(tracked):
    assert tracked.first.code == tracked.second.code == 0, tracked.first.err + tracked.second.err
    assert "resumed from step 3" in tracked.second.out
    assert not warnings(tracked.first.err + tracked.second.err)
    assert [row["step"] for row in tracked.first_rows] == [1, 2, 3, 4, 5]
    assert [row["step"] for row in all_rows(tracked.path)] == [1, 2, 3, 4, 5, 6]
    assert tracked.first_rows[4] != all_rows(tracked.path)[4]  # a longer schedule: what is taken back was different


def test_trackers_change_no_metric(tracked, monkeypatch):
    monkeypatch.chdir(tracked.folder)
    assert train(f"{COMMON} --save_path plain --max_steps 5 --plot_every 0").code == 0
    assert rows(tracked.folder / "plain") == [without_perf(row) for row in tracked.first_rows]


def without_perf(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if not name.startswith("perf/")}


# Weights & Biases


def test_wandb_holds_every_metric_of_every_step(tracked):
    first, second = wandb_runs(tracked.path)
    before = evaluated_before(tracked.path)
    assert without_tables(first) == {0: before, **by_step(tracked.first_rows)}
    assert without_tables(second) == by_step(all_rows(tracked.path)[3:])
    assert first.exit_code == second.exit_code == 0


def without_tables(run: WandbRun) -> dict[int, dict[str, float]]:
    """The history's numbers; every step but that of the first evaluation has a table of its samples beside them."""
    assert all((values.get("samples/_type") == "table-file") == (step > 0) for step, values in run.history.items())
    return {
        step: {name: value for name, value in values.items() if not name.startswith("samples/")}
        for step, values in run.history.items()
    }


def evaluated_before(path: Path) -> dict[str, float]:
    """As metrics: `error` is the reason of invalid responses, of which there are none."""
    found = read_json(path / "summary.json")["eval"]["before"]
    return {f"eval/{name}": value for name, value in found.items() if name != "error"}


def by_step(found: list[dict[str, Any]]) -> dict[int, dict[str, float]]:
    return {row["step"]: {name: value for name, value in row.items() if name != "step"} for row in found}


def test_a_resumed_run_goes_on_in_its_own_wandb_run(tracked):
    first, second = wandb_runs(tracked.path)
    assert first.id == second.id == (tracked.path / "logs/wandb_id").read_text().strip()
    assert (first.project, first.entity, first.name) == ("counting", "", "all")
    arguments = read_json(tracked.path / "logs/run.json")["arguments"]
    assert second.config == {name: entry["value"] for name, entry in arguments.items()}


# TensorBoard


@pytest.fixture(scope="module")
def board(tracked):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(tracked.path / "tb"), size_guidance={"histograms": 0})
    found.Reload()
    return found


def test_tensorboard_holds_every_metric_of_every_step(tracked, board):
    told = [{"step": 0, **evaluated_before(tracked.path)}, *all_rows(tracked.path)]
    names = {name for row in told for name in row} - {"step"}
    assert set(board.Tags()["scalars"]) == names
    for name in names:
        found = board.Scalars(name)
        assert [point.step for point in found] == [row["step"] for row in told if name in row], name
        exact = [row[name] for row in told if name in row]
        assert [point.value for point in found] == pytest.approx(exact, rel=2**-23), name  # float32


def test_tensorboard_shows_arguments_and_lengths(tracked, board):
    shown = [entry.tensor_proto.string_val[0].decode() for entry in board.Tensors("arguments/text_summary")]
    assert "| max_steps | 6 |" in shown[-1] and "| seed | 42 |" in shown[-1]
    lengths = {entry.step: entry.histogram_value for entry in board.Histograms("rollout/length")}
    assert list(lengths) == [1, 2, 3, 4, 5, 6]
    for row in all_rows(tracked.path):
        found = lengths[row["step"]]
        assert found.num == 16 and found.max == row["rollout/length_max"]
        assert found.sum == pytest.approx(16 * row["rollout/length_mean"])


# Plots


def test_plots_of_exactly_the_right_steps(tracked):
    """--plot_every 2 until step 5; then the resumption from step 3 takes step 4 back and plots every fifth."""
    drawn = {name for name in tracked.first_files if "plots/" in name}
    assert drawn == {f"logs/plots/{name}.png" for name in ("curves", "length_000002", "length_000004")}
    left = sorted((tracked.path / "logs/plots").iterdir())
    assert [path.name for path in left] == ["curves.png", "length_000002.png", "length_000005.png"]
    for path in left:
        with Image.open(path) as image:
            assert image.format == "PNG" and min(image.size) > 100
            assert len(image.convert("L").getcolors(256) or []) > 10  # something was drawn


def test_plot_every_0_draws_nothing(here):
    assert train("--fsdp --max_steps 2 --save_path run --plot_every 0 --quiet").code == 0
    assert not [name for name in files(here / "run") if name.endswith(".png")]


# Trajectories


def trajectories(path: Path, step: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / f"logs/trajectories/step_{step:06d}.jsonl").read_text().splitlines()]


def test_trajectories_of_every_step(tracked):
    assert sorted(path.name for path in (tracked.path / "logs/trajectories").iterdir()) == [
        f"step_{step:06d}.jsonl" for step in range(1, 7)
    ]
    assert [len(trajectories(tracked.path, step)) for step in range(1, 7)] == [16, 16, 16, 3, 3, 3]
    for row in all_rows(tracked.path)[:3]:
        found = trajectories(tracked.path, row["step"])
        assert {line["step"] for line in found} == {row["step"]}
        assert fmean(line["reward"]["total"] for line in found) == pytest.approx(row["reward/mean"])
        assert fmean(len(line["response_ids"]) for line in found) == row["rollout/length_mean"]
        assert {line["policy_version"] for line in found} == {row["step"] - 1}


def test_what_a_trajectory_says_of_its_response(tracked):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tracked.folder / "tiny")
    data = {line["prompt"]: line for line in map(json.loads, (tracked.folder / "add.jsonl").read_text().splitlines())}
    for line in trajectories(tracked.path, 1):
        (message,) = line["messages"]
        assert line["reference"] == data[message["content"]]["label"] and line["source"] == "add"
        assert tokenizer.decode(line["response_ids"], skip_special_tokens=True) == line["response"]
        assert "".join(line["tokens"]).removesuffix("<eos>") == line["response"]
        assert (line["tokens"][-1] == "<eos>") == (line["finish_reason"] == "stop")
        total = len(line["response"]) + 0.1 * sum(map(ord, line["response"]))  # shaped.py:length
        assert line["reward"] == {"total": pytest.approx(total), "parts": {"length": pytest.approx(total)}}
        assert line["error"] is None


def test_saved_advantages_follow_from_the_saved_rewards(tracked):
    """group_norm by hand: (R - mean) / (std + 1e-6), one number for all tokens of a response."""
    for step in (1, 2, 3):
        groups: dict[int, list[dict[str, Any]]] = {}
        for line in trajectories(tracked.path, step):
            groups.setdefault(line["group"], []).append(line)
        assert [len(group) for group in groups.values()] == [4, 4, 4, 4]
        for group in groups.values():
            totals = [line["reward"]["total"] for line in group]
            scale = stdev(totals) + 1e-6
            for line, total in zip(group, totals, strict=True):
                expected = (total - fmean(totals)) / scale if len(set(totals)) > 1 else 0.0
                assert line["advantages"] == pytest.approx([expected] * len(line["response_ids"]), abs=1e-5)
            assert sum(line["advantages"][0] for line in group) == pytest.approx(0, abs=1e-5)


def test_saved_logprobs_are_the_model_s_own(tracked):
    """Against a plain forward pass of the starting model, which is the policy of step 1 and the reference of all."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tracked.folder / "tiny", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tracked.folder / "tiny")
    for step in (1, 2, 3):
        for line in trajectories(tracked.path, step):
            prompt = tokenizer(line["messages"][0]["content"])["input_ids"]
            ids = torch.tensor([[*prompt, *line["response_ids"]]])
            with torch.no_grad():
                logits = model(ids).logits[0, len(prompt) - 1 : -1]
            exact = logits.log_softmax(-1).gather(-1, ids[0, len(prompt) :, None])[:, 0].tolist()
            assert line["ref_logprobs"] == pytest.approx(exact, abs=1e-4)
            if step == 1:
                assert line["rollout_logprobs"] == pytest.approx(exact, abs=1e-4)
    assert "old_logprobs" not in line  # one optimizer step: the current ones are the old ones


def test_old_logprobs_are_saved_where_a_rollout_is_trained_on_in_several_steps(here):
    flags = "--train_batch_size 8 --init_kl_coef 0 --reward_fn shaped.py:nan_for_some --save_trajectories"
    assert train(f"--fsdp --max_steps 2 --save_path run {flags} --num_trajectories_to_save 4 --quiet").code == 0
    for step in (1, 2):
        found = trajectories(here / "run", step)
        assert [line["error"] is not None for line in found] == [True, False, False, False]
        assert found[0]["reward"]["total"] is None and set(found[0]["advantages"]) == {0.0}
        for line in found:
            assert line["old_logprobs"] == pytest.approx(line["rollout_logprobs"], abs=1e-4)
            assert "ref_logprobs" not in line


# Profiles


def test_profiled_steps_leave_a_trace_and_a_table(tracked):
    folder = tracked.path / "logs/profile"
    assert sorted(path.name for path in folder.iterdir()) == [
        f"step_{step:06d}.{ending}" for step in (2, 4) for ending in ("json", "txt")
    ]
    for step in (2, 4):
        events = read_json(folder / f"step_{step:06d}.json")["traceEvents"]
        names = [event["name"] for event in events if event.get("ph") == "X"]
        assert "aten::mm" in names and any("backward" in name.lower() for name in names)
        lines = (folder / f"step_{step:06d}.txt").read_text().splitlines()
        assert "Self CPU" in lines[1] and any("aten::mm" in line for line in lines)
        share = [float(line.split("%")[0].split()[-1]) for line in lines[3:10]]
        assert share == sorted(share, reverse=True)


# Trackers that fail, and a changed world


def test_a_tracker_that_cannot_even_be_made_does_not_stop_the_run(here, monkeypatch):
    def fail(path: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tensorboard.summary.writer.record_writer.RecordWriter", fail)
    ended = train("--fsdp --max_steps 2 --save_path run --use_tensorboard run/tb --quiet")
    assert ended.code == 0 and len(rows(here / "run")) == 2
    assert warnings(ended.err) == [
        "warning: TensorBoard failed and is off from now on (OSError: [Errno 28] No space left on device)"
    ]


def test_a_resumed_run_names_a_changed_version_and_a_changed_file(here):
    (here / "data").mkdir()
    (here / "data/a.jsonl").write_text((here / "add.jsonl").read_text())
    flags = "--fsdp --save_path run --save_steps 1 --prompt_data data/a.jsonl --quiet"
    assert train(f"{flags} --max_steps 1").code == 0
    state = here / "run/checkpoints/step_000001/state.json"
    before = read_json(state)
    before["record"]["packages"]["torch"] = "1.0"
    state.write_text(json.dumps(before))
    state.with_name("state.sha256").write_text(own_sum(json.dumps(before).encode()))
    (here / "data/a.jsonl").write_text((here / "add.jsonl").read_text() + "\n")
    resumed = train(f"{flags} --max_steps 2 --load_checkpoint")
    assert resumed.code == 0
    assert "warning: changed since that checkpoint: version of torch was 1.0, is " in resumed.out
    assert "warning: changed since that checkpoint: hash of data/a.jsonl was " in resumed.out
    assert not math.isnan(rows(here / "run")[1]["reward/mean"])
