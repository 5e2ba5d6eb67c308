"""The pages of the documentation are run as they stand (see pages.py); and the runner is shown to catch mistakes."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from pages import PageFailed, blocks_of, commands_of, furnish, plain_words, walk
from runs import ROOT, read_json

PAGES = [page.relative_to(ROOT).as_posix() for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))]
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)(?:#[^)]*)?\)")
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}+="
POSITIONS = 8192  # as many as the model that stands here for it has


@pytest.fixture(scope="module")
def chat_model(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a chat template. Characters that it does not know are <unk>, so it copes with any text."""
    model = tmp_path_factory.mktemp("chat") / "model"
    shutil.copytree(tiny_folder / "model", model)
    for name, change in {
        "tokenizer_config.json": {"chat_template": CHAT_TEMPLATE},
        "config.json": {"max_position_embeddings": POSITIONS},
    }.items():
        (model / name).write_text(json.dumps({**read_json(model / name), **change}))
    return model


@pytest.fixture
def checkout(chat_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    furnish(tmp_path, chat_model)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES)
def test_the_page_does_what_it_says(checkout: Path, page: str):
    text = (ROOT / page).read_text()
    walked = walk(page, text, checkout)
    assert len(walked.ran) + len(walked.shown) == _commands_counted(text)


def _commands_counted(text: str) -> int:
    """By another way than the runner's: lines of bash blocks that begin a command."""
    bash = re.findall(r"^```bash(?: fails)? *\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    joined = re.sub(r"\\\n", " ", "\n".join(bash))
    return len(re.findall(r"^[ \t]*[^#\s]", joined, flags=re.MULTILINE))


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md"])
def test_links_lead_to_files(page: str):
    targets = LINK.findall((ROOT / page).read_text())
    assert not [target for target in targets if not (ROOT / page).parent.joinpath(target).exists()]


# The runner itself

TRAIN = """python train.py --pretrain models/SmolLM2-135M-Instruct --prompt_data my.jsonl --reward_fn last_number \\
    --rollout_batch_size 2 --n_samples_per_prompt 2 --train_batch_size 4 --max_new_tokens 4 --fsdp"""
DATA = """```jsonl my.jsonl
{"prompt": "What is 2 + 3?", "label": "5"}
{"prompt": "4+4=", "label": "8"}
```
"""
GOOD = f"""
# A page

{DATA}
```bash
# the run
{TRAIN} \\
    --save_path out --max_steps 2     # two steps
LIGHTRFT_TESTED=yes python show.py | tr a-z A-Z
```

prints

```text
step 1/2 ... reward ...
finished 2 steps; model in out
YES 2
```

```python show.py
import os
print("never run")
```

```yaml
only: shown
```

```text
this is compared with nothing
```

```bash fails
{TRAIN} --save_path again --max_step 2
```

```text
error: --max_step is not a flag; nearest: --max_steps
```

```bash
pip install something
```

```text
what that prints
```
"""
SHOW = """```python show.py
import os
print(os.environ["LIGHTRFT_TESTED"], len(open("my.jsonl").readlines()))
```
"""


def page_of(*blocks: str) -> str:
    return "\n".join(f"```{block}\n```\n" for block in blocks)


def failure(text: str, folder: Path) -> str:
    with pytest.raises(PageFailed) as failed:
        walk("page.md", text, folder)
    return str(failed.value)


def test_a_good_page(checkout: Path):
    walked = walk("page.md", SHOW + GOOD, checkout)
    assert [command.text.split()[0] for command in walked.ran] == ["python", "LIGHTRFT_TESTED=yes", "python"]
    assert [command.text for command in walked.shown] == ["pip install something"]
    assert len(walked.ran) + len(walked.shown) == _commands_counted(SHOW + GOOD) == 4
    assert (checkout / "out/model.safetensors").is_file() and not (checkout / "again").exists()


def test_a_command_that_fails(checkout: Path):
    text = failure(f"one\ntwo\n{page_of(f'bash{chr(10)}{TRAIN} --save_path out')}", checkout)
    assert text.startswith("page.md:4: python train.py --pretrain models/SmolLM2-135M-Instruct --prompt_data my.jsonl")
    assert "exit code 2; the page says exit code 0" in text and "error: --prompt_data my.jsonl: no such file" in text
    assert "exit code 3;" in failure(page_of("bash\necho before\nexit 3"), checkout)
    assert "exit code 1;" in failure(page_of("bash\nfalse | true"), checkout)
    assert "exit code 1;" in failure(page_of("bash\nfalse; true"), checkout)


def test_a_refused_command_that_is_accepted(checkout: Path):
    text = failure(DATA + page_of(f"bash fails\n{TRAIN} --save_path out --dry_run"), checkout)
    assert (
        "ends with exit code 0; the page says a refusal, exit code 2" in text and "page.md:6: python train.py" in text
    )


def test_a_refusal_is_no_failure_of_another_kind(checkout: Path):
    assert "exit code 1; the page says a refusal" in failure(page_of("bash fails\nexit 1"), checkout)


@pytest.mark.parametrize(
    ("shown", "line"),
    [
        ("one\nthree", "three"),  # is not there
        ("two\none", "one"),  # another order
        ("on", "on"),  # a part of a line
        ("one...\none...", "one..."),  # once is not twice
        ("o...x", "o...x"),
    ],
)
def test_output_that_is_not_there(checkout: Path, shown: str, line: str):
    text = failure(page_of("bash\necho one\necho two >&2", f"text\n{shown}"), checkout)
    assert re.match(rf"page\.md:[78]: the output has no such line here: {re.escape(line)}\none\ntwo\n", text)


def test_output_that_is_there(checkout: Path):
    walk("page.md", page_of("bash\necho one [1.5]\necho two >&2", "text\none [...]\n\n...o"), checkout)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("  ```bash\n  false\n  ```\n", "page.md:1: a fence must be"),
        ("~~~\nfalse\n~~~\n", "page.md:1: a fence must be"),
        ("x\n```bash\ntrue\n", "page.md:2: this block is never closed"),
        ("```sh\nfalse\n```\n", "page.md:1: sh blocks are not run; write ```bash"),
        ("```\nfalse\n```\n", "page.md:1: the block names no language"),
        ("```bash fail\nfalse\n```\n", "page.md:1: 'fail' is neither the name of a file"),
        ("```yaml fails\na: 1\n```\n", "page.md:1: 'fails' is neither the name of a file"),
        ("```yaml a.yaml b.yaml\na: 1\n```\n", "page.md:1: 'a.yaml b.yaml' is neither"),
        ("```yaml ../up.yaml\na: 1\n```\n", "page.md:1: '../up.yaml' is neither"),
    ],
)
def test_blocks_that_would_go_untested(checkout: Path, text: str, said: str):
    assert failure(text, checkout).startswith(said)


def test_an_exception_has_its_place_too(checkout: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(*_, **__):
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr("lightrft.cli.parse", broken)
    assert failure(page_of("bash\npython train.py --help"), checkout) == (
        "page.md:2: python train.py --help\nZeroDivisionError: of ours"
    )


@pytest.mark.parametrize("text", ("gitk", "pip list", "git log", "pip install x", "tensorboard --logdir x"))
def test_only_what_is_listed_is_left_out(text: str):
    (command,) = commands_of(next(blocks_of("page.md", page_of(f"bash\n{text}"))))
    assert command.is_shown_only == (text not in ("gitk", "pip list"))


def test_words_of_a_command():
    words = ["python", "train.py", "--a", "b c?", "{x}", "--d=e"]
    assert plain_words("""python train.py --a 'b c?' "{x}" --d=e # f""") == words
    for text in ("A=1 python train.py", "python train.py $HOME", 'python train.py "$HOME"', "a | b", "a > b", "a *.py"):
        assert plain_words(text) is None
