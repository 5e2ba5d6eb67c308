"""What glibc's malloc is told, seen from a process of its own, and when it is left alone."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightrft import allocator

ROOT = Path(__file__).parents[2]
FAULTS = """
import resource, sys
from lightrft.allocator import keep_freed_memory
told = sys.argv[1] == "tell" and keep_freed_memory()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"1" * (5 << 26)
print(int(told), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
# ends where the allocator is told, 7 when torch is there already; 2, refused, if that place is never reached
CALLED = """
import sys
import lightrft.cli as cli
cli.keep_freed_memory = lambda: sys.exit(7 if "torch" in sys.modules else 0)
flags = "--pretrain none --prompt_data none --reward_fn exact --save_path none"
sys.exit(cli.main(argv=f"{flags} --rollout_batch_size 4 --train_batch_size 16".split()))
"""


def fresh(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    free = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    return subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, env=free, capture_output=True, text=True)


def is_told(monkeypatch: pytest.MonkeyPatch) -> bool:
    """Without telling this process anything."""
    told = []

    class Libc:
        def mallopt(self, setting: int, value: int) -> int:
            told.append((setting, value))
            return 1

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Libc())
    said = allocator.keep_freed_memory()
    assert told == (list(allocator.SETTINGS.items()) if said else [])
    return said


def test_freed_memory_is_kept():
    """320 MiB are 81,920 pages, more than the heap's margin: a second block of that size faults them anew, or none."""
    told, faults = map(int, fresh(FAULTS, "tell").stdout.split())
    alike = os.confstr("CS_GNU_LIBC_VERSION").startswith("glibc") and not allocator._has_gpu()
    assert told == alike and (faults < 1000) == alike
    assert int(fresh(FAULTS, "no").stdout.split()[1]) > 8000


def test_it_is_told_before_torch_is_there():
    assert fresh(CALLED).returncode == 0


@pytest.mark.parametrize("libc", ["glibc 2.17", "glibc 2.41"])
def test_glibc_is_told(monkeypatch, libc):
    monkeypatch.setattr(os, "confstr", lambda name: libc)
    for name in [name for name in os.environ if name.startswith(("MALLOC_", "GLIBC_"))]:
        monkeypatch.delenv(name)
    assert is_told(monkeypatch)
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.rtld.nns=4")
    assert is_told(monkeypatch), "a setting of something else"


def test_beside_a_gpu_it_is_left_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "confstr", lambda name: "glibc 2.36")
    monkeypatch.setattr(allocator, "GPU_DRIVERS", (str(tmp_path),))
    assert not is_told(monkeypatch)


@pytest.mark.parametrize("answer", [None, "NPTL 2.3", ValueError, AttributeError])
def test_another_libc_is_left_alone(monkeypatch, answer):
    def confstr(name: str):
        if isinstance(answer, type):
            raise answer(name)
        return answer

    monkeypatch.setattr(os, "confstr", confstr)
    assert not is_told(monkeypatch)


@pytest.mark.parametrize(
    ("name", "value"), [("MALLOC_ARENA_MAX", "1"), ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=1")]
)
def test_the_users_own_settings_stand(monkeypatch, name, value):
    monkeypatch.setattr(os, "confstr", lambda name: "glibc 2.36")
    monkeypatch.setenv(name, value)
    assert not is_told(monkeypatch)
