"""Rewards of every kind in real runs; their numbers are worked out again from the responses that a spy wrote down."""

from __future__ import annotations

import json
import math
from statistics import fmean, pstdev

import pytest
from runs import BASE, files, read_json, rows, train

ONE_STRATEGY = "--fsdp --max_steps 2 --quiet"
PLAIN = BASE.replace(" --reward_fn last_number", "").replace(" --eval_data eval.jsonl", "")
SAMPLES = 16  # of a step

MINE = '''
import json
import re
from pathlib import Path

from lightrft.rewards.rules import last_number


def spy(rollouts):
    """Notes what the others are asked about; its own value is the length in tokens."""
    with Path("seen.jsonl").open("a") as file:
        for rollout in rollouts:
            row = {"response": rollout.response, "label": rollout.prompt.reference, "tokens": len(rollout.response_ids)}
            file.write(json.dumps({**row, "columns": dict(rollout.prompt.columns)}) + "\\n")
    return [len(rollout.response_ids) for rollout in rollouts]


def own(responses, references):
    return [last_number(text, answer) for text, answer in zip(responses, references)]


def trl(prompts, completions, completion_ids, label, log_metric=None, **kwargs):
    assert all(isinstance(text, str) for text in prompts + completions)
    assert all(isinstance(ids, list) for ids in completion_ids)
    return [last_number(text, answer) for text, answer in zip(completions, label)]


def verl(data_source, solution_str, ground_truth, extra_info=None):
    assert (data_source, extra_info) == ("add", {})
    return {"score": last_number(solution_str, ground_truth), "acc": True}


def trl_chat(prompts, completions, **kwargs):
    assert all(len(prompt) == 2 and prompt[0]["role"] == "system" for prompt in prompts)
    assert all([turn["role"] for turn in completion] == ["assistant"] for completion in completions)
    return [len(completion[0]["content"]) for completion in completions]


def short(completions, kind, **kwargs):
    return [len(text) if its == "short" else None for text, its in zip(completions, kind)]


def high(completions, kind, **kwargs):
    return [float(len(re.findall("[5-9]", text))) if its == "high" else None for text, its in zip(completions, kind)]


def picky(solution_str, ground_truth, **kwargs):
    return 1 / solution_str.count("1")


def picky_batch(responses):
    return [1 / text.count("1") for text in responses]


def vandal(responses, references, rollouts, label):
    for sample, row in zip(rollouts, label):
        sample.prompt.messages[-1]["content"] = sample.prompt.columns["label"] = "gone"
    return [last_number(text, answer) for text, answer in zip(responses, references)]


def mixed(completions, solution_str): ...
def asks(completions, levle): ...
'''
TWIN = "def own(responses):\n    return [0.0] * len(responses)\n"


@pytest.fixture
def mine(here):
    (here / "mine.py").write_text(MINE)
    (here / "twin.py").write_text(TWIN)
    return here


def seen(folder, step):
    """The samples of a step, as the spy saw them."""
    lines = (folder / "seen.jsonl").read_text().splitlines()
    assert len(lines) == 2 * SAMPLES
    return [json.loads(line) for line in lines[SAMPLES * (step - 1) : SAMPLES * step]]


def rewrite(folder, name, change):
    """add.jsonl with changed rows, as another file."""
    old = [json.loads(line) for line in (folder / "add.jsonl").read_text().splitlines()]
    (folder / name).write_text("".join(json.dumps(change(number, row)) + "\n" for number, row in enumerate(old)))


def test_one_judgement_in_four_forms_and_its_weights(mine):
    """Rule, this trainer's, TRL's and verl's convention agree in every step; weights work from CLI and YAML alike."""
    given = f"{ONE_STRATEGY} --reward_fn last_number mine.py:own mine.py:trl mine.py:verl mine.py:spy"
    weights = {"own": 0.0, "trl": 2.0, "verl": -0.5, "spy": 0.25}
    typed = " ".join(f"{name}={weight}" for name, weight in weights.items())
    assert train(f"{given} --reward_weights {typed} --save_path cli", PLAIN).code == 0
    for number, row in enumerate(rows(mine / "cli"), start=1):
        samples = seen(mine, number)
        right = [float(sample["response"] in (sample["label"], "0" + sample["label"])) for sample in samples]
        lengths = [sample["tokens"] for sample in samples]
        assert [row[f"reward/{name}"] for name in ("last_number", "own", "trl", "verl")] == [fmean(right)] * 4
        assert 0 < fmean(right) < 1  # else nothing was shown
        totals = [(1 + 0 + 2 - 0.5) * value + 0.25 * length for value, length in zip(right, lengths, strict=True)]
        assert row["reward/mean"] == pytest.approx(fmean(totals), rel=1e-12)
        assert row["reward/std"] == pytest.approx(pstdev(totals), rel=1e-12)
        assert row["reward/invalid_frac"] == 0
    (mine / "run.yaml").write_text(f"rewards:\n  reward_weights: {json.dumps(weights)}\n")
    assert train(f"{given} --config run.yaml --save_path yaml", PLAIN).code == 0
    assert rows(mine / "yaml") == rows(mine / "cli")
    assert train(f"{given} --save_path unweighted", PLAIN).code == 0
    assert rows(mine / "unweighted") != rows(mine / "cli")


def test_the_math_rules_train_on_references_in_latex(mine):
    """A label 5 is written as a fraction. Nobody taught the model to box its answers: `boxed` finds them all wrong."""
    rewrite(mine, "latex.jsonl", lambda _, row: {**row, "label": rf"\frac{{{3 * int(row['label'])}}}{{3}}"})
    given = "--prompt_data latex.jsonl --reward_fn math boxed mine.py:spy"
    assert train(f"{ONE_STRATEGY} {given} --save_path run", PLAIN).code == 0
    for number, row in enumerate(rows(mine / "run"), start=1):
        samples = seen(mine, number)
        answers = [int(sample["response"] or -1) for sample in samples]  # some say nothing
        right = [a == int(sample["label"][6:-4]) / 3 for a, sample in zip(answers, samples, strict=True)]
        assert not all(right)
        assert (row["reward/math"], row["reward/boxed"]) == (fmean(right), 0.0)
        assert row["reward/invalid_frac"] == 0
    assert sum(row["reward/math"] for row in rows(mine / "run")) > 0  # else nothing was shown


def test_exact_is_met_with_a_stop_text(mine):
    """Sums from 10 to 18 end at their second digit, and the reference is the first; rewards see the whole text."""
    rewrite(mine, "tens.jsonl", lambda _, row: {**row, "label": row["label"][:1]})
    given = "--prompt_data tens.jsonl --reward_fn exact mine.py:spy --stop 0 2 3 4 5 6 7 8 9"
    assert train(f"{ONE_STRATEGY} {given} --save_path run", PLAIN).code == 0
    cut = 0
    for number, row in enumerate(rows(mine / "run"), start=1):
        samples = seen(mine, number)
        shorter = [s["response"][:-1] if s["response"][-1:] in set("023456789") else s["response"] for s in samples]
        right = [s["label"] in (s["response"], text) for s, text in zip(samples, shorter, strict=True)]
        cut += sum(s["label"] == text != s["response"] for s, text in zip(samples, shorter, strict=True))
        assert row["reward/exact"] == fmean(right)
        assert row["reward/invalid_frac"] == 0
    assert cut > 0  # else nothing was shown


def test_trl_gets_messages_where_the_rows_hold_messages(mine):
    def chat(_, row):
        turns = [{"role": "system", "content": "1"}, {"role": "user", "content": row["prompt"]}]
        return {**row, "prompt": turns}

    rewrite(mine, "chat.jsonl", chat)
    ended = train(
        f"{ONE_STRATEGY} --prompt_data chat.jsonl --reward_fn mine.py:trl_chat mine.py:spy --save_path run", PLAIN
    )
    assert ended.code == 0
    for number, row in enumerate(rows(mine / "run"), start=1):
        assert row["reward/invalid_frac"] == 0
        assert row["reward/trl_chat"] == fmean(len(sample["response"]) for sample in seen(mine, number))


def test_rewards_that_apply_to_some_samples_only(mine):
    """Each part is averaged over its own samples, and held-out responses are judged by the part that applies."""
    rewrite(mine, "kinds.jsonl", lambda number, row: {**row, "kind": ("short", "high", "high")[number % 3]})
    rewrite(mine, "half.jsonl", lambda number, row: {**row, "kind": ("short", "high")[number % 2]})
    given = "--prompt_data kinds.jsonl --reward_fn mine.py:short mine.py:high"
    assert train(f"{ONE_STRATEGY} {given} mine.py:spy --reward_weights spy=0 --save_path run", PLAIN).code == 0
    for number, row in enumerate(rows(mine / "run"), start=1):
        values = {"short": [], "high": []}
        for sample in seen(mine, number):
            kind, text = sample["columns"]["kind"], sample["response"]
            values[kind].append(float(len(text) if kind == "short" else sum(letter in "56789" for letter in text)))
        assert values["short"] and values["high"]
        assert row["reward/short"] == fmean(values["short"])
        assert row["reward/high"] == fmean(values["high"])
        assert row["reward/mean"] == pytest.approx(fmean(values["short"] + values["high"]), rel=1e-12)
        assert row["reward/invalid_frac"] == 0
    (mine / "seen.jsonl").unlink()
    held_out = "--eval_data half.jsonl --max_eval_samples 10"
    assert train(f"{ONE_STRATEGY} {given} mine.py:spy {held_out} --save_path judged", PLAIN).code == 0
    first = [json.loads(line) for line in (mine / "seen.jsonl").read_text().splitlines()][:10]
    wanted = {"short": set("0123456789"), "high": set("56789")}
    full = [bool(wanted[sample["columns"]["kind"]] & set(sample["response"])) for sample in first]
    before = read_json(mine / "judged/summary.json")["eval"]["before"]
    assert (before["n"], before["accuracy"]) == (10, fmean(full))
    assert 0 < fmean(full) < 1  # else nothing was shown


def test_an_exception_spares_the_other_samples_and_is_named(mine):
    """In verl's convention and for a whole batch alike."""
    for name in ("picky", "picky_batch"):
        (mine / "seen.jsonl").unlink(missing_ok=True)
        ended = train(f"{ONE_STRATEGY} --reward_fn mine.py:spy mine.py:{name} --save_path {name}", PLAIN)
        assert ended.code == 0
        for number, row in enumerate(rows(mine / name), start=1):
            ones = [sample["response"].count("1") for sample in seen(mine, number)]
            bad = ones.count(0) / SAMPLES
            assert 0 < bad < 1
            assert row["reward/invalid_frac"] == pytest.approx(bad)
            assert row[f"reward/{name}"] == pytest.approx(fmean(1 / count for count in ones if count))
            assert math.isfinite(row["policy/grad_norm"])
            if number == 1:  # once, also with --quiet
                count = ones.count(0)
                said = (
                    f"step 1: {count} of 16 samples are invalid ({count}: {name}: ZeroDivisionError: division by zero"
                )
                assert ended.out.count("samples are invalid") == 1 and said in ended.out


def test_a_reward_file_and_its_helper_are_executed_once_in_a_run_with_held_out_prompts(mine):
    """Two functions of the file, for training and held-out prompts, and a helper in its folder."""
    folder = mine / "elsewhere"
    folder.mkdir()
    note = "from pathlib import Path\nwith Path('executed').open('a') as file:\n    file.write(__file__ + '\\n')\n"
    judge = "    return [float(known(text, answer)) for text, answer in zip(responses, references)]\n"
    both = "".join(f"def {name}(responses, references):\n{judge}" for name in ("first", "second"))
    (folder / "rewards.py").write_text(f"{note}from beside_rewards import known\n{both}")
    (folder / "beside_rewards.py").write_text(f"{note}def known(text, answer):\n    return text == answer\n")
    functions = "elsewhere/rewards.py:first elsewhere/rewards.py:second"
    given = f"--reward_fn {functions} --eval_data eval.jsonl --max_eval_samples 4"
    assert train(f"{ONE_STRATEGY} {given} --save_path run", PLAIN).code == 0
    lines = (mine / "executed").read_text().split()
    assert sorted(lines) == [str(folder / "beside_rewards.py"), str(folder / "rewards.py")]


def test_a_reward_that_changes_what_it_is_given_changes_nothing(mine):
    for name, first in (("alone", ""), ("after", "mine.py:vandal ")):
        (mine / "seen.jsonl").unlink(missing_ok=True)
        given = f"--reward_fn {first}mine.py:trl mine.py:spy --reward_weights spy=0 {'vandal=0' if first else ''}"
        assert train(f"{ONE_STRATEGY} {given} --save_path {name}", PLAIN).code == 0
        assert all(sample["columns"]["label"].isdigit() for step in (1, 2) for sample in seen(mine, step))
    before, after = rows(mine / "alone"), rows(mine / "after")
    assert [row["reward/trl"] for row in after] == [row["reward/trl"] for row in before]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--reward_fn mine.py:mixed", "mixes conventions: TRL's (completions) and verl's (solution_str)"),
        ("--reward_fn mine.py:asks", "asks for 'levle', which does not exist; in TRL's convention there is prompts"),
        ("--reward_fn mine.py:own twin.py:own", "--reward_fn: mine.py:own and twin.py:own are named 'own'"),
        ("--reward_fn math math", "--reward_fn names math 2 times; --reward_weights math=2 counts it as often"),
        ("--reward_fn mine.py:verl --reward_weights vrel=2", "no reward has this name (did you mean verl?)"),
        ("--reward_fn mine.py:trl --config bad.yaml", "--reward_weights tlr=2.0: no reward has this name"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(mine, flags, expected):
    (mine / "bad.yaml").write_text("reward_weights: {tlr: 2}\n")
    before = files(mine)
    ended = train(f"{ONE_STRATEGY} --save_path run {flags}", PLAIN)
    assert ended.code == 2
    [line] = ended.problems
    assert expected in line
    assert {path for path in files(mine) - before if "__pycache__" not in path} == set()
