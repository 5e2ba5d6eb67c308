"""The whole loop on one, two and three ranks: the same samples, rewards and metrics, to the rounding of sums."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import pytest
from on_ranks import run_on
from runs import files, prepare, rows, samples, words
from vision_models import save_questions, save_tiny

from lightrft.args.estimators import estimator_names

STEPS = 10
BATCHES = "--rollout_batch_size 6 --train_batch_size 24 --micro_train_batch_size 2"
ALL = f"--quiet --save_interval 0 --max_steps {STEPS} --save_trajectories --num_trajectories_to_save 1000"
# AdamW divides a gradient by its own size: of one that is all rounding it would make a full step.
SGD = "--optimizer sgd --max_norm 0 --actor_learning_rate 0.05 --critic_learning_rate 0.005"
CASES = {
    "zero2": "",
    "zero3": f"--zero_stage 3 --init_kl_coef 0 {SGD}",
    "fsdp": "--fsdp --eval_steps 4",
    "off_policy": "--fsdp --train_batch_size 12 --max_epochs 2 --advantage_estimator gspo --replay_sampling_mask",
    "critic": f"--fsdp --advantage_estimator gae {SGD} --actor_learning_rate 0.005",
    "dynamic": "--zero_stage 1 --dynamic_sampling --temperature 1.5 --max_gen_batches 4",
    "entropy": f"--fsdp --high_entropy_token_ratio 0.3 --overlong_buffer --overlong_buffer_len 2 {SGD}",
}
IMAGES = "--pretrain tiny_vision --reward_fn shaped.py:length --prompt_max_len 64 --max_len 72"
CASES |= {
    "images": f"--fsdp {IMAGES} --prompt_data seen.jsonl {SGD}",
    "mixed": f"--zero_stage 3 {IMAGES} --prompt_data half_seen.jsonl --mixed_mm_data {SGD}",
}
RANKS = (1, 2, 3)
# On two ranks alone: flags that split the work otherwise, and the case whose numbers they must not change.
OTHERWISE = {
    "sequence": ("fsdp", "--sp_size 2"),
    "sequence_zero3": ("zero3", "--sp_size 2"),
    "copies": ("fsdp", "--hybrid_shard_size 1"),
    "once_a_step": ("fsdp", "--fsdp_reshard step"),
}
CLOSE = {"rel": 1e-5, "abs": 1e-5}


@pytest.fixture(scope="module")
def ended(tiny_folder: Path, tmp_path_factory) -> dict[int, Path]:
    """Folders with a run of each case, by the number of ranks; every rank of every run ends with 0."""
    folders = {}
    for processes in RANKS:
        folder = folders[processes] = prepare(tmp_path_factory.mktemp(f"on_{processes}"), tiny_folder)
        save_tiny("qwen2_5_vl", folder / "tiny_vision")
        save_questions(folder / "add.jsonl", folder, 12)
        otherwise = {name: f"{CASES[case]} {flags}" for name, (case, flags) in OTHERWISE.items()}
        cases = CASES | (otherwise if processes == 2 else {})
        lines = [words(f"{ALL} {BATCHES} {flags} --save_path {name}") for name, flags in cases.items()]
        for ranks in run_on(processes, lines, folder):
            assert [rank.code for rank in ranks] == [0] * processes, [rank.err for rank in ranks]
            assert not any(rank.out or rank.err for rank in ranks[1:]), "the first rank alone speaks"
    return folders


ON_SEVERAL = [(case, case, processes) for processes in RANKS[1:] for case in CASES]


@pytest.mark.parametrize(
    ("name", "case", "processes"), [*ON_SEVERAL, *((name, case, 2) for name, (case, _) in OTHERWISE.items())]
)
def test_the_metrics_are_those_of_one_rank(ended: dict[int, Path], name: str, case: str, processes: int):
    one, several = rows(ended[1] / case), rows(ended[processes] / name)
    assert len(one) == len(several) == STEPS
    for expected, found in zip(one, several, strict=True):
        assert found == pytest.approx(expected, **CLOSE)


@pytest.mark.parametrize("processes", RANKS[1:])
def test_the_samples_are_those_of_one_rank(ended: dict[int, Path], processes: int):
    """Rounding may flip a rare token: at most one in 2,000."""
    tokens = flipped = 0
    for name in CASES:
        one, several = (samples(ended[count] / name) for count in (1, processes))
        assert [(s["step"], s["prompt_id"], s["group"]) for s in one] == [
            (s["step"], s["prompt_id"], s["group"]) for s in several
        ]
        tokens += sum(len(s["response_ids"]) for s in one)
        flipped += sum(a["response_ids"] != b["response_ids"] for a, b in zip(one, several, strict=True))
        assert [s["reward"] for s in several] == [s["reward"] for s in one] or flipped
    assert flipped <= tokens / 2000, f"{flipped} of {tokens}"


@pytest.mark.parametrize("processes", RANKS[1:])
def test_the_files_are_those_of_one_rank(ended: dict[int, Path], processes: int):
    for name in CASES:
        assert files(ended[processes] / name) == files(ended[1] / name)


# What one process tells about learning (tests/e2e/test_estimators_learn.py), on two

LEARN = """--pretrain tiny --prompt_data add.jsonl --prompt_max_len 8 --max_new_tokens 4 --max_len 12 --top_p 1
 --max_epochs 2 --lr_scheduler constant --lr_warmup_steps 0 --save_interval 0 --plot_every 0 --fsdp --quiet
 --reward_fn last_number --rollout_batch_size 16 --n_samples_per_prompt 16 --train_batch_size 64
 --micro_train_batch_size 32 --micro_rollout_batch_size 16 --actor_learning_rate 2e-4 --max_steps 40"""


@pytest.mark.slow
def test_every_estimator_learns_on_two_ranks(tiny_folder: Path, tmp_path: Path):
    folder = prepare(tmp_path, tiny_folder)
    own = {"gae": "--critic_learning_rate 1e-3"}
    lines = [words(f"--advantage_estimator {n} --save_path {n} {own.get(n, '')}", LEARN) for n in estimator_names()]
    for name, ended in zip(estimator_names(), run_on(2, lines, folder, seconds=1500), strict=True):
        assert [rank.code for rank in ended] == [0, 0], ended[0].err
        rewards = [row["reward/mean"] for row in rows(folder / name)]
        assert fmean(rewards[-10:]) - fmean(rewards[:10]) > 0.08, name
