"""A user's file: executed once, its neighbours importable, no bytecode beside it, its faults in one line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lightrft.errors import Refused
from lightrft.user_code.module import own_module, with_helpers


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", [*sys.path])


def test_executed_once_per_process_and_anew_when_it_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "mine.py").write_text("with open('seen', 'a') as file: file.write('x')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    first = own_module("mine.py", "--reward_fn mine.py:f")
    assert (
        own_module(str(tmp_path / "mine.py"), "--eval") is first
        and own_module("../" + tmp_path.name + "/mine.py", "") is first
    )
    assert (tmp_path / "seen").read_text() == "x"
    (tmp_path / "mine.py").write_text("value = 1\n")
    assert own_module("mine.py", "").value == 1
    assert not (tmp_path / "__pycache__").exists()


def test_files_beside_it_can_be_imported_and_hide_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    (tmp_path / "beside_it.py").write_text("value = 7\n")
    (tmp_path / "colorsys.py").write_text("raise RuntimeError('hidden')\n")
    (tmp_path / "a_file_of_ones_own.py").write_text("import colorsys\nfrom beside_it import value\n")
    assert own_module(str(tmp_path / "a_file_of_ones_own.py"), "").value == 7
    assert not (tmp_path / "__pycache__").exists()


def test_its_functions_may_import_them_late_too(tmp_path: Path):
    (tmp_path / "late_beside.py").write_text("def double(x):\n    return 2 * x\n")
    (tmp_path / "own.py").write_text("def f(x):\n    from late_beside import double\n\n    return double(x)\n")
    module = own_module(str(tmp_path / "own.py"), "")
    with pytest.raises(ModuleNotFoundError):
        module.f(4)
    assert [with_helpers(module, module.f)(4), with_helpers(module, module.f)(x=5)] == [8, 10]
    assert "late_beside" not in sys.modules


@pytest.mark.parametrize(
    "text, cause",
    [
        ("x = 1\nimport no_such_package\n", "ModuleNotFoundError: No module named 'no_such_package' (line 2)"),
        ("import sys\n\nsys.exit(3)\n", "SystemExit: 3 (line 3)"),
        ("def f():\n    raise ValueError('a\\nb')\nf()\n", "ValueError: a b (line 2)"),
    ],
)
def test_faults_are_one_line(tmp_path: Path, text: str, cause: str):
    (tmp_path / "bad.py").write_text(text)
    with pytest.raises(Refused) as refused:
        own_module(str(tmp_path / "bad.py"), "--reward_fn bad.py:f")
    assert str(refused.value) == f"--reward_fn bad.py:f: importing the file failed: {cause}"
    assert not [name for name in sys.modules if name.startswith("own_file_") and "bad.py" in str(sys.modules[name])]


def test_no_such_file(tmp_path: Path):
    with pytest.raises(Refused, match=r"^--x: no such file none\.py \(looked in "):
        own_module("none.py", "--x")


def test_a_link_in_a_circle_is_no_file(tmp_path: Path):
    (tmp_path / "circle.py").symlink_to("circle.py")
    with pytest.raises(Refused, match="--reward_fn circle.py:f: no such file .*circle.py"):
        own_module(str(tmp_path / "circle.py"), "--reward_fn circle.py:f")
