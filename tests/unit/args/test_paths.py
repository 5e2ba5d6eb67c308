"""`~` and `$NAME`: expanded in every path, from the command line and YAML alike, and never the name of a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_lines import BASE, REQUIRED, from_yaml, parsed, refusal, refused

from lightrft.args import parse
from lightrft.args.surface import FLAGS

PATHS = """pretrain critic_pretrain reward_pretrain cache_dir lora_path reward_fn judge_template prompt_data eval_data
processor log_dir use_tensorboard save_path ckpt_path config"""
TEXTS = """remote_rm_url judge_url value_head_prefix target_modules freeze_prefix stop engine_kwargs prompt_split
eval_split input_key label_key reference_key source_key images_key system_prompt input_template use_wandb wandb_org
wandb_run_name assume_gpus"""
EACH = pytest.mark.parametrize("name", PATHS.split())


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DISK", "/disk")
    monkeypatch.delenv("NOWHERE", raising=False)
    (tmp_path / "x").write_text("seed: 7\n")
    return tmp_path


def value(*words: str, flag: str) -> str:
    found = parse([*REQUIRED.split(), "--reward_fn", "exact", *words]).value(flag)
    return found[0] if isinstance(found, tuple) else found


def test_every_flag_of_text_is_a_path_or_known_to_be_none():
    """A new flag has to be entered in one of the two lists."""
    free = {flag.name for flag in FLAGS.values() if flag.kind.of is str and flag.record.allowed() is None}
    assert {name for name in free if FLAGS[name].record.path} == set(PATHS.split())
    assert {name for name in free if not FLAGS[name].record.path} == set(TEXTS.split())


@EACH
@pytest.mark.parametrize("written", ["~/x", "$HOME/x", "${HOME}/x"])
def test_home_on_the_command_line(name: str, written: str, home: Path):
    assert value(f"--{name}", written, flag=name) == f"{home}/x"
    assert value(f"--{name}={written}", flag=name) == f"{home}/x"


@pytest.mark.parametrize("name", [name for name in PATHS.split() if name != "config"])
@pytest.mark.parametrize("written", ["~/x", "'~/x'", "${HOME}/x", '"$HOME/x"'])
def test_home_in_yaml(name: str, written: str, home: Path, tmp_path: Path):
    words = [word for pair in REQUIRED[2:].split(" --") if (word := f"--{pair}").split()[0] != f"--{name}"]
    (tmp_path / "run.yaml").write_text(f"{name}: {written}\n")
    found = parse([*" ".join(words).split(), "--config", f"{tmp_path}/run.yaml"]).value(name)
    assert found in (f"{home}/x", (f"{home}/x",))


def test_what_follows_from_an_expanded_path_and_the_forms_of_others(home: Path, tmp_path: Path):
    args = from_yaml(tmp_path, "ckpt_path: $DISK/keep\n", "--save_path ~/out --eval_data a.jsonl ~/b.jsonl")
    assert (args.logging.log_dir, args.checkpoint.ckpt_path) == (f"{home}/out/logs", "/disk/keep")
    assert args.evaluation.eval_data == ("a.jsonl", f"{home}/b.jsonl")
    assert parsed("--reward_fn ~/my.py:score").rewards.reward_fn == (f"{home}/my.py:score",)
    assert value("--reward_pretrain", "a=~/rm", "b=$DISK/rm", flag="reward_pretrain") == f"a={home}/rm"
    assert parsed("--save_path ~").checkpoint.save_path == str(home)


def test_what_is_left_as_it_is():
    for path in ("a~b", "./~/x", "cost$5", "a/$", "x$-y", "org/name"):
        assert parsed(f"--log_dir {path}").logging.log_dir == path
    assert parsed("--stop $NOWHERE ~/x --system_prompt ~").sampling.stop == ("$NOWHERE", "~/x")


@EACH
def test_what_is_not_there_is_refused(name: str):
    assert refused(f"--{name} a/$NOWHERE/x") == [
        f"--{name} is 'a/$NOWHERE/x', and NOWHERE is not set in the environment; set it, or write the whole path"
    ]
    assert refused(f"--{name}=~no_such_user/x") == [
        f"--{name} is '~no_such_user/x', and ~no_such_user is no home folder here; write the whole path"
    ]


@pytest.mark.parametrize("written", ["out/${trainer.name}", "${oc.env:HOME}/x", "${", "$HOME/${a b}"])
def test_what_only_another_language_fills_in_is_no_folder(written: str):
    (line,) = refusal(parse, [*BASE.split(), "--log_dir", written])
    assert line == (
        f"--log_dir is {written!r}, and only $NAME and ${{NAME}} of the environment are filled in; write the whole path"
    )


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Else $EMPTY/x would be a folder of the root."""
    monkeypatch.setenv("HOME", "")
    (tmp_path / "run.yaml").write_text("save_path: ~/x\nlog_dir: ${HOME}/x\n")
    assert refusal(parse, [*BASE.split(), "--config", f"{tmp_path}/run.yaml"]) == [
        f"{tmp_path}/run.yaml:1: save_path is '~/x', and ~ is no home folder here; write the whole path",
        f"{tmp_path}/run.yaml:2: log_dir is '${{HOME}}/x', and HOME is not set in the environment; set it, or write "
        "the whole path",
    ]


@pytest.mark.parametrize("name", [*PATHS.split(), "stop", "system_prompt", "input_key", "wandb_run_name"])
def test_bytes_that_are_no_text(name: str, tmp_path: Path):
    """`\\xff` in an argument arrives as a lone surrogate, which neither JSON nor YAML can hold."""
    (line,) = refused(f"--{name} a\udcff")
    assert line == f"--{name} 'a\\udcff' holds bytes that are no text in UTF-8; rename it, or start with PYTHONUTF8=1"
    if name != "config":
        (tmp_path / "run.yaml").write_text(f'{name}: "a\\uDCFF"\n')
        (line,) = refusal(parse, [*BASE.split(), "--config", f"{tmp_path}/run.yaml"])
        assert line.startswith(f"{tmp_path}/run.yaml:1: {name} 'a\\udcff' holds bytes that are no text")
