"""The head's benchmark in a tiny size: sides come to the same gradients, and peers run where they are installed."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SIZE = ["--tokens", "64", "--words", "512", "--width", "32", "--rounds", "1"]
PEERS = {"trl", "trl_logits", "liger"}
KERNELS = """
class ChunkedLogProbFunction:
    @staticmethod
    def apply(hidden, weight, bias, tokens, temperature, chunk, cap, scale, outputs):
        assert (bias, chunk, cap, outputs) == (None, 7, None, ("log_probs", "entropy"))
        logp = (scale * hidden @ weight.t() / temperature).log_softmax(-1)
        return logp.gather(-1, tokens[:, None])[:, 0], -(logp.exp() * logp).sum(-1).detach(), None, None, None
"""
UTILS = """
_CHUNKED_LOGPROB_CHUNK_SIZE = 7

def selective_log_softmax(logits, tokens, temperature):
    return (logits / temperature).log_softmax(-1).gather(-1, tokens[..., None])[..., 0]

def selective_log_softmax_and_entropy(logits, tokens, entropy_requires_grad, temperature):
    logp = selective_log_softmax(logits, tokens, temperature)
    return logp, logp.detach()
"""


def told(*command: str) -> list[str]:
    """The lines that a Python prints."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'benchmarks'}", "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def left_out(lines: list[str]) -> set[str]:
    return {line.partition(":")[0] for line in lines if "left out" in line}


def gradients(lines: list[str]) -> dict[str, list[str]]:
    """By side, as the table shows their lengths."""
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    return {name.split()[0]: numbers[-2:] for name, *numbers in rows[1:]}


@pytest.fixture
def python_with_trl(tmp_path: Path) -> str:
    """Python of another environment: this one's packages, and a TRL that computes with whole logits."""
    venv.create(tmp_path, with_pip=False)
    packages = next(tmp_path.glob("lib/*/site-packages"))
    packages.joinpath("others.pth").write_text(sysconfig.get_path("purelib"))
    files = {"trl/kernels.py": KERNELS, "trl/trainer/utils.py": UTILS, "trl-9.8.dist-info/METADATA": "Version: 9.8\n"}
    for name, text in files.items():
        packages.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
        packages.joinpath(name).write_text(text)
    return str(tmp_path / "bin" / "python")


def test_peers_run_in_their_environment_and_come_to_the_same_gradients(python_with_trl, tmp_path):
    lines = told(str(ROOT / "benchmarks/head.py"), *SIZE, "--peers_python", python_with_trl, "--logs", str(tmp_path))
    assert lines[0].startswith("trl: trl 9.8, torch 2") and lines[1].startswith("trl_logits: trl 9.8, torch 2")
    assert lines[2] == f"liger: left out, no liger-kernel in {python_with_trl}; --peers_python names another"
    found = gradients(lines)
    assert found.keys() >= {"naive", "fused", "trl", "trl_logits"} and "liger" not in found
    assert all(lengths == found["naive"] for lengths in found.values()) and float(min(found["naive"])) > 0


def test_peers_that_are_nowhere_are_left_out_and_a_frozen_head_has_no_gradient(tmp_path):
    lines = told(str(ROOT / "benchmarks/head.py"), *SIZE, "--frozen", "--logs", str(tmp_path))
    found = gradients(lines)
    assert left_out(lines) == PEERS - found.keys()
    assert found["naive"] == found["fused"] and found["naive"][1] == "0" != found["naive"][0]


def test_one_process_has_all_sides_in_turns():
    lines = told("-c", "import head; print(*head.on_device(64, 512, 32, 'float32', 1, device='cpu'), sep='\\n')")
    found = gradients(lines)
    assert found["naive"] == found["fused"] and left_out(lines) == PEERS - found.keys()


def test_a_python_that_is_not_there_is_refused():
    command = [sys.executable, str(ROOT / "benchmarks/head.py"), "--peers_python", "nowhere/python"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 2 and "--peers_python nowhere/python: no such program; ENV/bin/python" in done.stderr
