"""Runs that are refused before they begin, or fail on their way: what they say, and what they leave behind."""

from __future__ import annotations

from pathlib import Path

from runs import files, train

RUN = "--fsdp --save_path run --max_steps 2 --quiet"


def assert_refused(flags: str, *expected: str, lines: int = 1) -> list[str]:
    """Exit code 2, as many lines as problems, every expected text in them, and a folder that is as it was before."""
    before = files(Path.cwd())
    ended = train(f"{RUN} {flags}")
    assert ended.code == 2, ended
    assert "Traceback" not in ended.err + ended.out
    assert len(ended.problems) == lines, ended.err
    for text in expected:
        assert text in ended.err, f"{text!r} is not in:\n{ended.err}"
    assert files(Path.cwd()) == before and not Path("run").exists()
    return ended.problems


def failed(flags: str, *expected: str) -> str:
    """Exit code 1 and one line; what was printed."""
    ended = train(flags)
    assert ended.code == 1, ended
    assert "Traceback" not in ended.err + ended.out
    assert len(ended.problems) == 1, ended.err
    for text in expected:
        assert text in ended.problems[0], ended.problems
    return ended.out


def assert_failed(flags: str, *expected: str) -> None:
    """The same during the run, which leaves no file that a finished one would have."""
    failed(f"{RUN} {flags}", *expected)
    assert not {"model.safetensors", "config.json", "summary.json"} & files(Path("run"))
