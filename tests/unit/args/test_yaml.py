from __future__ import annotations

from pathlib import Path

import pytest
from command_lines import BASE, from_yaml, parsed, refusal

from lightrft.args import parse


def refused_yaml(folder: Path, text: str) -> list[str]:
    return [line.replace(f"{folder}/", "") for line in refusal(from_yaml, folder, text)]


def test_flat_nested_and_numbers_as_written(tmp_path: Path):
    args = from_yaml(
        tmp_path,
        "actor_learning_rate: 1e-6\nsampling:\n  temperature: 1\n  stop: [a, 'b c']\nfsdp: true\nmax_steps: null\n"
        "attn_implementation: ~\n"
        "training:\n  adam_betas: [0.5, .6]\ngenerate_max_len: 9\nprompt_data: add.jsonl\neval_data: one.jsonl\n",
    )
    assert args.training.actor_learning_rate == 1e-6
    assert isinstance(args.sampling.temperature, float) and args.sampling.temperature == 1.0
    assert args.sampling.stop == ("a", "b c") and args.training.adam_betas == (0.5, 0.6)
    assert args.distributed.fsdp is True and args.training.max_steps is None and args.model.max_new_tokens == 9
    assert args.model.attn_implementation is None and args.typed("attn_implementation")
    assert args.evaluation.eval_data == ("one.jsonl",)
    assert args.sources["temperature"].where == f"{tmp_path}/run.yaml:3" and args.typed("temperature")
    assert args.typed("max_new_tokens") and not args.typed("min_p")


@pytest.mark.parametrize("text", ["{a: 2, b.c: -1e-3}", "[a=2, b.c=-1e-3]"])
def test_weights_as_mapping_or_as_pairs(tmp_path: Path, text: str):
    assert from_yaml(tmp_path, f"reward_weights: {text}").rewards.reward_weights == {"a": 2.0, "b.c": -1e-3}


def test_an_empty_file_sets_nothing(tmp_path: Path):
    assert from_yaml(tmp_path, "# nothing\n").training == parsed().training
    assert from_yaml(tmp_path, "model:\ntraining:\n  seed: 3\n").training.seed == 3


@pytest.mark.parametrize(
    "text, line",
    [
        ("seed: 1\ntemprature: 1\n", "run.yaml:2: temprature is not a flag; nearest: temperature"),
        ("a: 1\n", "run.yaml:1: a is not a flag; --help lists them all"),
        ("? [seed]\n: 1\n", "run.yaml:1: a list or a mapping is not a flag; --help lists them all"),
        ("\nsampling:\n  topp: 1\n", "run.yaml:3: topp is not a flag; nearest: top_p"),
        ("model:\n  seed: 1\n", "run.yaml:2: seed does not belong under model but under training"),
        ("training:\n  gamma: 1\n", "run.yaml:2: gamma does not belong under training but under algorithm"),
        (
            "data:\n  train_batch_size: 1024\n",
            "run.yaml:2: data.train_batch_size of verl is not train_batch_size here; use rollout_batch_size (prompts "
            "in both; --train_batch_size counts samples here)",
        ),
        ("data:\n  seed: 1\n", "run.yaml:2: seed does not belong under data but under training"),
        ("model: 3\n", "run.yaml:1: model is a group and must be a mapping of its flags; use pretrain"),
        ("batch: 3\n", "run.yaml:1: batch is a group and must be a mapping of its flags"),
        ("engine_type: tgi\n", "run.yaml:1: engine_type tgi is not one of its choices: auto, vllm, sglang, local"),
        ("config: x.yaml\n", "run.yaml:1: config cannot stand in a file; give all files to --config"),
        ("seed: 1\n\nseed: 2\n", "run.yaml:3: seed is set twice, first on line 1; remove one"),
        ("seed: 1\ntraining:\n  seed: 2\n", "run.yaml:3: seed is set twice, first on line 1; remove one"),
        (
            "max_new_tokens: 1\ngenerate_max_len: 2\n",
            "run.yaml:2: generate_max_len is set twice, first on line 1; remove one",
        ),
        ("max_steps: 3.5\n", "run.yaml:1: max_steps must be an integer, got '3.5'"),
        ("max_steps: '3'\n", "run.yaml:1: max_steps must be an integer, got '3' in quotes"),
        ("max_steps: [3]\n", "run.yaml:1: max_steps must be an integer, got a list"),
        ("max_steps: {a: 3}\n", "run.yaml:1: max_steps must be an integer, got a mapping"),
        ("temperature: 0\n", "run.yaml:1: temperature 0 is out of bounds: it must be > 0"),
        ("fsdp: yes\n", "run.yaml:1: fsdp must be true or false, got 'yes'"),
        ("fsdp: 'true'\n", "run.yaml:1: fsdp must be true or false, got 'true' in quotes"),
        ("input_key: no\n", "run.yaml:1: input_key must be text, got 'no'; put it in quotes"),
        ("adam_betas: [0.9]\n", "run.yaml:1: adam_betas takes 2 values, got 1"),
        ("reward_weights: {a: x}\n", "run.yaml:1: reward_weights must be a finite number, got 'x'"),
        ("reward_weights: {a: 1, a: 2}\n", "run.yaml:1: reward_weights names 'a' twice; remove one"),
        ("kl_estimator: k4\n", "run.yaml:1: kl_estimator k4 is not one of its choices: k1, k2, k3"),
        ("- seed\n", "run.yaml:1: must be a mapping of flags to values"),
        ("seed: 1\n---\nseed: 2\n", "run.yaml:2: broken YAML: but found another document"),
        ("seed: 1\nstop: [a\nmax_len: 3\n", "run.yaml:3: broken YAML: did not find expected ',' or ']'"),
    ],
)
def test_one_line_with_file_and_line_for_one_mistake(tmp_path: Path, text: str, line: str):
    got = refused_yaml(tmp_path, text)
    if "broken YAML" in line:  # the cause is PyYAML's own wording
        assert len(got) == 1 and got[0].startswith(line.rpartition(": ")[0])
    else:
        assert got == [line]


def test_files_that_cannot_be_read(tmp_path: Path):
    assert refusal(parsed, f"--config {tmp_path}/none.yaml") == [
        f"--config {tmp_path}/none.yaml: No such file or directory; give a YAML file"
    ]
    assert refusal(parsed, f"--config {tmp_path}") == [f"--config {tmp_path}: Is a directory; give a YAML file"]
    (tmp_path / "latin.yaml").write_bytes(b"input_key: \xe9\n")
    assert refusal(parsed, f"--config {tmp_path}/latin.yaml") == [
        f"--config {tmp_path}/latin.yaml: not a UTF-8 text file; give a YAML file"
    ]


def test_command_line_beats_later_file_beats_earlier_file(tmp_path: Path):
    (tmp_path / "a.yaml").write_text("seed: 1\ntop_k: 5\nmin_p: 0.5\n")
    (tmp_path / "b.yaml").write_text("# second\nseed: 2\ntop_k: 6\n")
    both = parsed(f"--config {tmp_path}/a.yaml --config {tmp_path}/b.yaml")
    assert both.sampling.min_p == 0.5 and both.training.seed == 2 and len(both.run.config) == 2
    args = parsed(f"--seed 3 --config {tmp_path}/a.yaml {tmp_path}/b.yaml")
    assert (args.training.seed, args.sampling.top_k, args.sampling.min_p) == (3, 6, 0.5)
    shown = [str(args.sources[flag]).replace(f"{tmp_path}/", "") for flag in ("seed", "top_k", "min_p")]
    assert shown == ["cli (hides b.yaml:2 = 2, a.yaml:1 = 1)", "b.yaml:3 (hides a.yaml:2 = 5)", "a.yaml:3"]


def test_required_flags_may_come_from_a_file(tmp_path: Path):
    required = "pretrain: tiny\nprompt_data: [add.jsonl]\nsave_path: out\n"
    (tmp_path / "run.yaml").write_text(required + "batch: {rollout_batch_size: 4, train_batch_size: 16}\n")
    args = parse(["--config", f"{tmp_path}/run.yaml"])
    assert (args.model.pretrain, args.batch.train_batch_size) == ("tiny", 16)


def test_defaults_of_a_call_stand_between_file_and_estimator(tmp_path: Path):
    (tmp_path / "run.yaml").write_text("advantage_estimator: gspo\nclip_range: 0.1\n")
    call = {"clip_range": 0.15, "clip_range_higher": 0.25, "seed": 7}
    args = parse([*BASE.split(), "--config", f"{tmp_path}/run.yaml"], call)
    assert (args.algorithm.clip_range, args.algorithm.clip_range_higher, args.training.seed) == (0.1, 0.25, 7)
    assert str(args.sources["clip_range_higher"]) == "default:program (hides default:gspo = 0.0004)"
    assert str(args.sources["clip_range"]).endswith("run.yaml:2 (hides default:program = 0.15, default:gspo = 0.0003)")
    assert not args.typed("seed")
    with pytest.raises(KeyError, match="sed"):
        parse(BASE.split(), {"sed": 7})


BROKEN = [
    b"seed: 1\n\tmax_len: 3\n", b"seed: [1\nmax_len: 3\n", b"seed: 1\n max_len: 3\n", b"seed: {1: 2\n",
    b"seed: 'open\n", b"seed: *nowhere\n", b"a: &a 1\n a: 2", b"seed: 1\n---\nseed: 2\n", b"seed: @x\n",
    b"%YAML 9.9\n---\nseed: 1\n", b"seed: " + b"[" * 600, b"\x00\x01\x02", b"seed: 1\x00\n", b"\xff\xfe\x00s\x00e",
    b"\x89PNG\r\n\x1a\n\x00\x00", "seed: 1\n".encode("utf-16"), b"- seed\n- 1\n", b"seed\n", b"5\n", b"'seed: 1'\n",
    b"!!set {seed}\n---\n",
]  # fmt: skip
EMPTY = (b"", b"\n\n", b"# seed: 1\n", b"---\n", b"---\n...\n", b"\xef\xbb\xbf")


@pytest.mark.parametrize("content", BROKEN)
def test_of_a_broken_file_one_line_is_told_and_no_rule_beside_it(tmp_path: Path, content: bytes):
    """What it would have set nobody knows; what is wrong on the command line is told all the same."""
    (tmp_path / "run.yaml").write_bytes(content)
    place, other = refusal(parsed, f"--config {tmp_path}/run.yaml --top_k 0 --seed x")
    if place.startswith("--seed"):
        place, other = other, place
    assert place.startswith((f"{tmp_path}/run.yaml:", f"--config {tmp_path}/run.yaml: "))
    assert other == "--seed must be an integer, got 'x'"


@pytest.mark.parametrize("content", EMPTY)
def test_an_empty_file_is_no_fault(tmp_path: Path, content: bytes):
    (tmp_path / "run.yaml").write_bytes(content)
    assert parsed(f"--config {tmp_path}/run.yaml").training == parsed().training


@pytest.mark.parametrize("text", ["seed: 3\n", "training: {seed: 3}\n", "training:\n  seed: &x 3\ntop_k: *x\n"])
@pytest.mark.parametrize(("encoding", "newline"), [("utf-8-sig", "\n"), ("utf-8", "\r\n")])
def test_other_encodings_forms_and_anchors(tmp_path: Path, text: str, encoding: str, newline: str):
    (tmp_path / "run.yaml").write_bytes(text.replace("\n", newline).encode(encoding))
    assert parsed(f"--config {tmp_path}/run.yaml").training.seed == 3
