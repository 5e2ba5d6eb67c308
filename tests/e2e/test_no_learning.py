"""A run that does not learn says so, and one that cannot go on learning ends with exit code 1 and one line."""

from __future__ import annotations

import pytest
import torch
from runs import BASE, all_rows, read_json, train
from safetensors.torch import load_file, save_file

FLAGS = "--fsdp --train_batch_size 8 --max_new_tokens 4"
WITHOUT = BASE.replace("--eval_data eval.jsonl", "")
FUNCTIONS = """
def one(responses):
    return [1.0] * len(responses)


def by_prompt(rollouts):
    return [float(rollout.group % 2) for rollout in rollouts]


def huge(responses):
    return [1e30 * (i % 4) for i, _ in enumerate(responses)]


def large(responses):
    return [float(i % 4) for i, _ in enumerate(responses)]


def steep(responses):
    return [-3e38 if i % 4 else 3e38 for i, _ in enumerate(responses)]


def unable(rollouts):
    if len(rollouts) != 16:
        raise ValueError("no reference")
    return [float(i % 4) for i, _ in enumerate(rollouts)]
"""


@pytest.fixture
def there(here):
    (here / "own.py").write_text(FUNCTIONS)
    return here


def broken_model(folder):
    """The tiny model with NaN in its head."""
    (folder / "nan").mkdir()
    for path in (folder / "tiny").iterdir():
        (folder / "nan" / path.name).write_bytes(path.read_bytes())
    tensors = load_file(folder / "tiny" / "model.safetensors")
    name = min(tensors, key=lambda name: ("norm" not in name, name))
    save_file({**tensors, name: tensors[name] * torch.nan}, folder / "nan" / "model.safetensors", {"format": "pt"})


# flags -> what the one line on stderr begins with
ENDED = {
    "--advantage_estimator dr_grpo --reward_fn own.py:huge --max_steps 12": (
        "error: step 5: 10 optimizer steps of the policy in a row were skipped, from step 1 on: every term of the loss "
        "is finite, and the gradient is not; lower --actor_learning_rate"
    ),
    "--advantage_estimator gae --critic_learning_rate 1e30 --reward_fn own.py:large --max_steps 12": (
        "error: step 6: 10 optimizer steps of the critic in a row were skipped, from step 1 on: critic/loss is not "
        "finite; lower --critic_learning_rate"
    ),
    "--actor_learning_rate 1e30 --reward_fn own.py:large --max_steps 12": (
        "error: step 2: the policy's logits are not finite; where it has learned already, lower --actor_learning_rate"
    ),
    "--pretrain nan --reward_fn own.py:large --max_steps 2": "error: step 1: the policy's logits are not finite",
    "--pretrain nan --eval_data eval.jsonl --reward_fn own.py:large": "error: evaluation: the policy's logits are not",
}


def test_what_cannot_go_on_ends_in_one_line(there):
    broken_model(there)
    for number, (flags, line) in enumerate(ENDED.items()):
        base = BASE if "--eval_data" in flags else WITHOUT
        ended = train(f"{FLAGS} --save_path run{number} {flags}", base)
        assert ended.code == 1, flags
        [problem] = ended.problems
        assert problem.startswith(line), (flags, problem)


def test_where_decoding_hides_it_the_update_says_it(there, monkeypatch):
    """Attention's kernel on a CPU makes zeros of scores that are not finite, and samples are drawn all the same."""
    monkeypatch.setattr("lightrft.rollouts.engines.local.engine.plain_of", lambda *_: None)
    ended = train(
        f"{FLAGS} --save_path run --actor_learning_rate 1e30 --reward_fn own.py:large --max_steps 12", WITHOUT
    )
    assert ended.code == 1 and ended.problems[0].startswith(
        "error: step 6: 10 optimizer steps of the policy in a row were skipped, from step 1 on: the policy's "
        "log-probabilities are not finite; lower --actor_learning_rate"
    )


def test_what_the_policy_learned_while_the_critic_skipped_is_kept(there):
    flags = "--advantage_estimator gae --critic_learning_rate 1e30 --reward_fn own.py:large --max_steps 12"
    ended = train(f"{FLAGS} --save_path run {flags}", WITHOUT)
    assert ended.code == 1 and "10 optimizer steps of the critic in a row" in ended.problems[0]
    assert "the state after step 6 is kept: run/checkpoints/step_000006; go on with --load_checkpoint" in ended.out
    assert "is lost" not in ended.out


def test_a_reward_that_teaches_nothing_is_said_at_once_and_at_the_end(there):
    said = {
        "--reward_fn own.py:one": ("every reward was 1; mend --reward_fn",) * 2,
        "--reward_fn own.py:one --advantage_estimator reinforce --quiet": ("every reward was 1; mend --reward_fn",) * 2,
        "--reward_fn own.py:by_prompt": ("the rewards of a prompt's samples were all equal; raise",) * 2,
    }
    for number, (flags, (first, last)) in enumerate(said.items()):
        ended = train(f"{FLAGS} --save_path run{number} --max_steps 2 {flags}", WITHOUT)
        lines = [line for line in ended.out.splitlines() if line.startswith("warning: ")]
        assert ended.code == 0 and len(lines) == 2
        assert lines[0].startswith(f"warning: step 1 has nothing to learn from: {first}")
        assert lines[1].startswith(f"warning: nothing was learned from the reward in 2 steps: {last}")
        assert ended.out.splitlines()[-1] == lines[1]


def test_a_resumed_run_remembers_what_it_has_learned_from(there):
    """Its second half varies no more, and so it says nothing at its end."""
    flags = f"{FLAGS} --save_path run --save_steps 1 --reward_fn"
    assert "warning" not in train(f"{flags} own.py:large --max_steps 1", WITHOUT).out
    ended = train(f"{flags} own.py:one --max_steps 3 --load_checkpoint", WITHOUT)
    assert ended.code == 0 and "nothing" not in ended.out


def test_advantages_beyond_float32_are_left_out_and_said(there):
    """One sample in four is 4.5e38 above its group's mean."""
    flags = f"{FLAGS} --save_path run --advantage_estimator dr_grpo --reward_fn own.py:steep --max_steps 2"
    ended = train(f"{flags} --quiet", WITHOUT)
    assert "warning: step 1: 25.00% of the responses have an advantage that is no number in float32" in ended.out
    assert all(row["policy/nonfinite_frac"] == 0.25 for row in all_rows(there / "run"))


def test_an_evaluation_that_judges_nothing_has_no_accuracy(there):
    """Nor does any tracker get one. What trains is judged."""
    trackers = "--use_tensorboard tb --plot_every 1 --save_trajectories"
    ended = train(f"{FLAGS} --save_path run --reward_fn own.py:unable --max_steps 2 --eval_steps 1 {trackers}")
    assert ended.code == 0 and "failed" not in ended.err
    assert "before training: none: not one of " in ended.out and "no reference" in ended.out
    assert ended.out.count("held out: none could be judged") == 2
    assert ended.out.count("warning: step 2: held-out accuracy is none: not one of ") == 1
    summary = read_json(there / "run" / "summary.json")
    for result in summary["eval"].values():
        assert (result["accuracy"], result["ci_low"], result["reward_mean"], result["n"]) == (None, None, None, 0)
        assert "no reference" in result["error"]
    for row in all_rows(there / "run"):
        assert row["eval/n"] == 0 and "eval/accuracy" not in row
