from __future__ import annotations

import json
from pathlib import Path

from command_lines import from_yaml, parsed

from lightrft.args.show import as_dict, print_args
from lightrft.args.surface import FLAGS


def line_of(text: str, flag: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.split()[:1] == [flag]]
    return line.split(maxsplit=2)


def test_text_shows_value_source_and_what_is_hidden(tmp_path: Path):
    args = from_yaml(tmp_path, "\nactor_learning_rate: 3e-5\n", "--actor_learning_rate 1e-6 --stop a b --fsdp")
    text = print_args(args, "text").replace(f"{tmp_path}/", "")
    assert line_of(text, "actor_learning_rate") == [
        "actor_learning_rate", "1e-06", "cli (hides run.yaml:2 = 3e-05)"
    ]  # fmt: skip
    assert line_of(text, "fsdp")[1:] == ["true", "cli"]
    assert line_of(text, "log_dir")[1:] == ["out/logs", "default"]
    assert line_of(text, "max_steps")[1:] == ["None", "default"]
    assert "  stop " in text and " a b " in text
    headings = [line for line in text.splitlines() if not line.startswith(" ")]
    assert headings[0] == "Model" and headings[-1] == "Run control" and len(headings) == 15
    assert len(text.splitlines()) == 15 + len(FLAGS)


def test_json_is_what_run_json_keeps(tmp_path: Path):
    args = from_yaml(tmp_path, "seed: 1\n", "--seed 2 --reward_weights a=2 --stop x --advantage_estimator gspo")
    kept = json.loads(print_args(args, "json"))
    assert kept == as_dict(args) and set(kept) == set(FLAGS)
    assert kept["seed"] == {"value": 2, "source": "cli", "hides": [{"source": f"{tmp_path}/run.yaml:1", "value": 1}]}
    assert kept["reward_weights"] == {"value": {"a": 2.0}, "source": "cli"}
    assert kept["stop"] == {"value": ["x"], "source": "cli"}
    assert kept["clip_range"] == {"value": 3e-4, "source": "default:gspo"}
    assert kept["bf16"] == {"value": None, "source": "default"}


def test_texts_with_white_space_are_quoted():
    args = parsed().with_(system_prompt="You are\na calculator.", stop=("\n",))
    text = print_args(args, "text")
    assert r"'You are\na calculator.'" in text and r"'\n'" in text
