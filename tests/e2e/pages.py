"""Pages of documentation, executed: what a reader would type is typed, and what a page shows has to appear.

A page is walked from top to bottom in one folder, by its fenced blocks:

    ```jsonl my_data.jsonl    any language and a file's name: the block is written to that file
    ```bash                   every command is run and must exit with 0
    ```bash fails             every command must be refused: exit code 2
    ```text                   right after a bash block: lines of its output, in this order; `...` stands for anything
    ```yaml, ```python, ...   without a file's name: only shown

`python train.py` and `python train_vl.py` with plain words run in this process, which saves seconds; everything else,
also what sets an environment variable, is given to bash, where `python` is this interpreter.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from children import environment
from runs import ROOT, Ended, call

# What takes long, installs or never returns: shown to the reader, not run here. Nothing else is left out.
SHOWN_ONLY = (
    "bash examples/quickstart.sh",
    "bash examples/quickstart_control.sh",
    "bash examples/tiny_addition.sh",
    "bash examples/tiny_shapes.sh",
    "bash examples/tiny_shapes_control.sh",
    "bash tests/run.sh",
    "python benchmarks/vs_trl.py",
    "tensorboard --logdir",
    "pip install",
    "pre-commit install",
    "git",
)
PROGRAMS = {"train.py": "text", "train_vl.py": "vision"}
LINKED = ("train.py", "train_vl.py", "lightrft", "examples")
NEEDS_A_SHELL = re.compile(r"[|&;<>$`*?(){}\[\]~!\\]")
QUOTED = re.compile(r"'[^']*'|\"[^\"$`\\]*\"")
ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
OTHER_SHELLS = ("sh", "shell", "console", "zsh")
DEADLINE_S = 120  # of one command; far above what the tiny model needs


class PageFailed(AssertionError):
    """The page does not say what is: its place, the command, and the command's output."""


@dataclass(frozen=True)
class Block:
    line: int  # of the opening fence
    language: str
    about: str  # a file's name, "fails", or nothing
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Command:
    line: int
    text: str  # continued lines joined

    @property
    def is_shown_only(self) -> bool:
        return any(f"{self.text} ".startswith(f"{start} ") for start in SHOWN_ONLY)


@dataclass(frozen=True)
class Walk:
    """What was done with a page's commands."""

    ran: tuple[Command, ...]
    shown: tuple[Command, ...]


def furnish(folder: Path, model: Path) -> None:
    """What a reader has in front of him: a checkout, and the model at the place that the pages name."""
    for name in LINKED:
        (folder / name).symlink_to(ROOT / name)
    (folder / "models").mkdir()
    (folder / "models" / "SmolLM2-135M-Instruct").symlink_to(model)


def walk(page: str, text: str, folder: Path) -> Walk:
    """Raises PageFailed at the first command that does not end as the page says. `folder` is the working directory."""
    ran: list[Command] = []
    shown: list[Command] = []
    output: str | None = None  # of the block before this one, if that was run
    for block in blocks_of(page, text):
        before, output = output, None
        if block.language == "bash" and block.about in ("", "fails"):
            commands = commands_of(block)
            shown += [command for command in commands if command.is_shown_only]
            due = [command for command in commands if not command.is_shown_only]
            outputs = [_run(page, command, folder, refused=block.about == "fails") for command in due]
            output = "".join(outputs) if due else None
            ran += due
        elif block.about:
            _write(folder / block.about, block)
        elif block.language == "text" and before is not None:
            _compare(page, block, before)
    return Walk(tuple(ran), tuple(shown))


def blocks_of(page: str, text: str) -> Iterator[Block]:
    """Fenced blocks. A fence that this reader would not see is an error: its block would go untested in silence."""
    opening: tuple[int, str] | None = None
    inside: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if opening is None:
            if line.startswith("```"):
                opening, inside = (number, line.removeprefix("```")), []
            elif line.lstrip().startswith(("```", "~~~")):
                raise PageFailed(f"{page}:{number}: a fence must be ``` at the start of the line")
        elif line.rstrip() == "```":
            yield _block(page, *opening, tuple(inside))
            opening = None
        else:
            inside.append(line)
    if opening is not None:
        raise PageFailed(f"{page}:{opening[0]}: this block is never closed")


def commands_of(block: Block) -> list[Command]:
    commands: list[Command] = []
    continued = False
    for number, line in enumerate(block.lines, start=block.line + 1):
        words = line.strip().removesuffix("\\").rstrip()
        if continued:
            commands[-1] = Command(commands[-1].line, f"{commands[-1].text} {words}".rstrip())
        elif words and not words.startswith("#"):
            commands.append(Command(number, words))
        else:
            continue
        continued = line.rstrip().endswith("\\")
    return commands


def plain_words(text: str) -> list[str] | None:
    """The words of a command, without its comment; None where only a shell can tell what it means."""
    if NEEDS_A_SHELL.search(QUOTED.sub("", text)) or ASSIGNMENT.match(text):
        return None
    return shlex.split(text, comments=True)


def _block(page: str, line: int, info: str, lines: tuple[str, ...]) -> Block:
    language, _, about = " ".join(info.split()).partition(" ")
    if not language:
        raise PageFailed(f"{page}:{line}: the block names no language")
    if language in OTHER_SHELLS:
        raise PageFailed(f"{page}:{line}: {language} blocks are not run; write ```bash")
    if about and not _is_file(about) and (language, about) != ("bash", "fails"):
        raise PageFailed(f"{page}:{line}: {about!r} is neither the name of a file nor, after bash, fails")
    return Block(line, language, about, lines)


def _is_file(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(path.suffix) and " " not in name and not path.is_absolute() and ".." not in path.parts


def _write(path: Path, block: Block) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(block.lines) + "\n")


def _run(page: str, command: Command, folder: Path, *, refused: bool) -> str:
    """The command's output, or PageFailed where it does not exit with 0, or 2 where it should be refused."""
    where = f"{page}:{command.line}: {command.text}"
    words = plain_words(command.text)
    try:
        program = PROGRAMS.get(words[1]) if words is not None and words[0] == "python" and len(words) > 1 else None
        ended = call(words[2:], program) if words is not None and program else _bash(command.text, folder)
    except Exception as error:
        raise PageFailed(f"{where}\n{type(error).__name__}: {error}") from error
    if ended.code != (2 if refused else 0):
        wanted = "a refusal, exit code 2" if refused else "exit code 0"
        raise PageFailed(f"{where}\nends with exit code {ended.code}; the page says {wanted}\n{ended.out}{ended.err}")
    return f"{ended.out}{ended.err}"


def _bash(text: str, folder: Path) -> Ended:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=folder,
        env=with_programs(folder),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def with_programs(folder: Path) -> dict[str, str]:
    """This environment, with a `python` that is this interpreter (a link would lose its virtual environment), and a
    `torchrun` of it."""
    programs = folder / ".programs"
    programs.mkdir(exist_ok=True)
    for name, more in {"python": "", "torchrun": "-m torch.distributed.run"}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {more} "$@"\n')
        (programs / name).chmod(0o755)
    mine = environment()
    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), mine.get("PATH", "")])
    return {**mine, "PATH": path}


def _compare(page: str, block: Block, output: str) -> None:
    """Every line of the block is a line of the output, in the same order; there may be others between them."""
    left = iter(line.rstrip() for line in output.splitlines())
    for number, line in enumerate(block.lines, start=block.line + 1):
        wanted = re.compile(".*".join(map(re.escape, line.rstrip().split("..."))))
        if line.strip() and not any(wanted.fullmatch(found) for found in left):
            raise PageFailed(f"{page}:{number}: the output has no such line here: {line}\n{output}")
