"""Standard output of any encoding, closed early or full: no run ends for it, and no traceback is shown."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightrft.streams import steady_streams

ROOT = Path(__file__).parents[2]
SETTINGS = "--pretrain tiny --prompt_data add.jsonl --reward_fn exact --save_path out --rollout_batch_size 4 "
SETTINGS += "--train_batch_size 16"


def shell(command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`command` by bash, with the exit code of the first program of a pipe."""
    environment = {**os.environ, **variables, "TRAIN": f"{sys.executable} {ROOT}/train.py {SETTINGS}"}
    environment.pop("PYTHONUNBUFFERED", None)  # as on a user's machine: what a closed pipe leaves is in a buffer
    line = f"{command}; exit ${{PIPESTATUS[0]}}"
    return subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True, errors="replace")


@pytest.mark.parametrize("what", ["--print_args", "--print_args json", "--help", "--system_prompt 你 --print_args"])
def test_a_reader_who_goes_early(what: str):
    done = shell(f"$TRAIN {what} | head -1")
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.count("\n") == 1
    done = shell(f"$TRAIN {what} | true")  # gone before the first line
    assert (done.returncode, done.stderr) == (0, "")


def test_a_reader_of_errors_who_goes_early():
    assert shell("$TRAIN --sed 1 2>&1 >/dev/null | true").returncode == 2


def test_streams_that_are_closed_from_the_start():
    assert shell("$TRAIN --print_args >&-").returncode == 0
    done = shell("$TRAIN --sed 1 2>&-")
    assert done.returncode == 2 and "Traceback" not in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux")
def test_what_was_asked_for_and_cannot_be_written():
    done = shell("$TRAIN --print_args > /dev/full")
    assert (done.returncode, done.stderr) == (
        1, "error: standard output cannot be written to: No space left on device\n"
    )  # fmt: skip


@pytest.mark.parametrize("encoding", ["latin-1", "ascii:strict"])
def test_an_encoding_that_cannot_hold_it(encoding: str):
    done = shell("$TRAIN --system_prompt 你好 --print_args", PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, "") and r"\u4f60\u597d" in done.stdout
    done = shell("$TRAIN --system_prompt é你😀 --print_args json", PYTHONIOENCODING=encoding)
    assert json.loads(done.stdout)["system_prompt"]["value"] == "é你😀"
    done = shell("$TRAIN --你 1", PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (2, "error: --\\u4f60 is not a flag; --help lists them all\n")


def test_bytes_of_an_argument_that_are_no_text():
    done = shell("$TRAIN --wrong_$'\\xff' 1 $'\\xfe' --save_path $'a\\xff'")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 2 and r"'a\udcff' holds bytes that are no text" in done.stderr


def test_the_streams_come_back_as_they_were(monkeypatch: pytest.MonkeyPatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    with steady_streams():
        print("é")
    assert stream.buffer.getvalue() == b"\\xe9\n"  # type: ignore[attr-defined]


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_file_of_the_run_never_becomes_a_closed_stream(closed: str, tmp_path: Path):
    """What libraries print would be written into it; nothing is lost but what was to be printed."""
    code = (
        "import os; from pathlib import Path; from lightrft.streams import steady_streams\n"
        "with steady_streams(), open('first', 'w') as file:\n"
        "    os.write(1, b'noise'); os.write(2, b'noise'); print('noise')\n"
        "    assert file.fileno() > 2 and not Path('first').stat().st_size\n"
        "Path('done').touch()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = f'{sys.executable} -c "{code}" {closed}'
    subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True)
    assert (tmp_path / "done").exists()
