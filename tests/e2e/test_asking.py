"""What is asked of the program without a run: --help, --print_args, --dry_run."""

from __future__ import annotations

import json
import re

from runs import call, files, train


def test_help(here):
    ended = call(["--help"])
    assert ended.code == 0
    for name in ("--pretrain", "--advantage_estimator", "--no-quiet", "--zero_stage"):
        assert name in ended.out


def test_print_args(here):
    (here / "run.yaml").write_text("seed: 5\nsampling:\n  top_p: 0.5\n")
    text = train("--save_path run --config run.yaml --seed 7 --print_args")
    assert text.code == 0
    assert re.search(r"^ +seed +7 +cli \(hides run\.yaml:1 = 5\)$", text.out, re.MULTILINE)
    assert re.search(r"^ +top_p +0\.5 +run\.yaml:3$", text.out, re.MULTILINE)
    shown = json.loads(train("--save_path run --config run.yaml --print_args json").out)
    assert shown["top_p"] == {"value": 0.5, "source": "run.yaml:3"}
    assert shown["max_new_tokens"] == {"value": 8, "source": "follows --max_len and --prompt_max_len"}
    assert not (here / "run").exists()


def test_print_args_says_what_a_run_would_say_of_them(here):
    """At the end, where it is seen; beside JSON and not in it. What would be refused is no reason to show nothing."""
    idle = "--clip_range 0.1 cannot matter: there is one optimizer step per rollout step, so the ratio is exactly 1"
    flags = "--save_path run --clip_range 0.1 --print_args"
    for form in ("text", "changed"):
        lines = train(f"{flags} {form}").out.splitlines()
        assert f"notice: {idle}" in lines[lines.index("Checkpoint") :]
    shown = train(f"{flags} json")
    assert json.loads(shown.out)["clip_range"]["value"] == 0.1 and f"notice: {idle}" in shown.err.splitlines()
    fault = "a run would be refused: --fp16 and --bf16 exclude each other; use --bf16 alone, or --fp16 --no-bf16"
    lines = train(f"{flags} --fp16 --bf16").out.splitlines()
    assert fault in lines and f"notice: {idle}" in lines
    strict = train(f"{flags} --strict_args")
    assert strict.code == 0 and f"a run would be refused: {idle} (refused under --strict_args" in strict.out


def test_dry_run_writes_nothing(here):
    before = files(here)
    ended = train("--fsdp --save_path run --dry_run --max_steps 2 --quiet")
    assert ended.code == 0 and not ended.err
    assert "2 steps of 4 prompts x 4 samples" in ended.out and "FSDP2" in ended.out
    bias = "trained on unfiltered log-probabilities"
    assert f"sampled with --top_p 0.9, {bias}: that bias stays" in ended.out
    assert bias not in train("--fsdp --save_path run --dry_run --max_steps 2 --top_p 1").out
    stays = "the drift is exactly 0, and its coefficient stays as it is"
    adapts = train("--fsdp --save_path run --dry_run --init_kl_coef 0.01 --kl_target 0.1 --kl_horizon 8").out
    assert "the KL coefficient adapts to 16 samples a step as to --kl_horizon 8" in adapts.splitlines()
    by_cpgd = "--fsdp --save_path run --dry_run --advantage_estimator cpgd"
    assert [stays in train(f"{by_cpgd} --max_epochs {n}").out for n in (1, 2)] == [True, False]
    assert files(here) == before and not (here / "run").exists()
