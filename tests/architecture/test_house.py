"""The house of docs/architecture.md: who may import whom, who may touch what, and how large things may be."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "lightrft"
SOURCES = sorted(PACKAGE.rglob("*.py"))
PROGRAMS = [*sorted(ROOT.glob("*.py")), *sorted((ROOT / "examples").glob("*.py")), *ROOT.glob("benchmarks/*.py")]

LEVELS = (  # a module imports what stands below it; on its own level only from a `base`
    {"cli", "commands"},
    {"build"},
    {"trainer"},
    {"held_out"},
    {"plan"},
    {"runtime"},
    {"method", "engine_choice"},
    {"recipe"},
    {"evaluation", "preflight"},
    {"loop", "hardware", "model_checks"},
    {"rollouts", "rewards", "update", "sync", "track"},
    {"models", "strategy"},
    {"algorithms", "prompts"},
    {"batch"},
    {"step_index", "sampling_masks", "digest"},
    {"ranks", "groups", "types", "args", "hub", "user_code"},
    {"errors", "streams", "allocator", "torchvision_operators"},
)
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}

HOMES = {  # who may touch it
    "torch.distributed": ("ranks/", "strategy/", "sync/", "rollouts/engines/tp_group.py"),
    "deepspeed": ("strategy/deepspeed.py",),
    "vllm": ("rollouts/engines/vllm",),  # the adapter, and what runs inside vLLM
    "sglang": ("rollouts/engines/sglang",),  # the adapter, and what it starts in other processes
}
OPTIONAL = ("deepspeed", "vllm", "sglang")  # imported inside functions: a run without them must not need them

MOST_LINES, MOST_LINES_OF_A_FUNCTION = 281, 60
DRAWERS = re.compile(r"(^|_)(vl|utils?|helpers?|misc|common|old|new|v\d)$")


@dataclass(frozen=True)
class Import:
    line: int
    module: str
    lazy: bool


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def short(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def imports(tree: ast.Module) -> Iterator[Import]:
    """Everything imported, and names like `torch.distributed.x` that are reached without an import of their own."""
    inside = {id(node) for f in functions(tree) for node in ast.walk(f)}
    for node in ast.walk(tree):
        lazy = id(node) in inside
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, alias.name, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: a relative import hides where it leads"
            yield from (Import(node.lineno, f"{node.module}.{alias.name}", lazy) for alias in node.names)
        elif isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.distributed":
            yield Import(node.lineno, "torch.distributed", lazy)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    yield from (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def part_of(module: str) -> tuple[str, ...]:
    """lightrft.rollouts.engines.base.Sampling -> (rollouts, engines, base, Sampling); () for other packages."""
    first, *rest = module.split(".")
    return tuple(rest) if first == "lightrft" else ()


def place(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def against_the_stairs(here: str, module: str) -> bool:
    part = part_of(module)
    if not part or part[0] not in LEVEL or part[0] == here:
        return False
    there = LEVEL[part[0]]
    if there == LEVEL[here]:
        return "base" not in part[1:-1]
    return there < LEVEL[here]


def test_every_module_has_its_level():
    assert {place(path) for path in SOURCES} - {"__init__"} <= set(LEVEL)


def test_imports_go_downward():
    wrong = [
        f"{short(path)}:{found.line} imports {found.module}"
        for path in SOURCES
        if place(path) in LEVEL
        for found in imports(parsed(path))
        if against_the_stairs(place(path), found.module)
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("here", "module", "wrong"),
    [
        ("update", "lightrft.rollouts.collector.Collector", True),
        ("update", "lightrft.rewards.base.checked", False),
        ("sync", "lightrft.rollouts.engines.base.InferenceEngine", False),
        ("models", "lightrft.update.step.Updater", True),
        ("models", "lightrft.batch.Batch", False),
        ("errors", "lightrft.batch.Batch", True),
        ("types", "lightrft.args.Args", True),
        ("build", "lightrft.trainer.Trainer", False),
    ],
)
def test_the_stairs_themselves(here, module, wrong):
    assert against_the_stairs(here, module) == wrong


@pytest.mark.parametrize("name", HOMES)
def test_who_may_touch_it(name):
    wrong = [
        f"{short(path)}:{found.line}"
        for path in SOURCES
        if not short(path).startswith(HOMES[name])
        for found in imports(parsed(path))
        if found.module == name or found.module.startswith(name + ".")
    ]
    assert not wrong


@pytest.mark.parametrize("name", OPTIONAL)
def test_optional_packages_are_imported_when_needed(name):
    wrong = [
        f"{short(path)}:{found.line}"
        for path in SOURCES
        for found in imports(parsed(path))
        if found.module.split(".")[0] == name and not found.lazy
    ]
    assert not wrong


def test_memory_changes_hands_in_one_place():
    """Who calls an engine's sleep, wake and update_weights decides who holds which memory when."""
    homes = ("loop/placement.py", "rollouts/engines/", "sync/")
    wrong = [
        f"{short(path)}:{call.lineno} calls {ast.unparse(call.func)}"
        for path in SOURCES
        if not short(path).startswith(homes)
        for call in ast.walk(parsed(path))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)
        if call.func.attr in ("sleep", "wake", "update_weights") and ast.unparse(call.func) != "time.sleep"
    ]
    assert not wrong


def test_arguments_rewards_and_types_import_no_torch():
    """Nor do the command line's own answers; so `--help` takes a moment, and rewards can be tested without torch."""
    light = [path for path in SOURCES if place(path) in ("args", "rewards", "types", "errors", "algorithms", "cli")]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in light]
    code = f"import importlib, sys\nfor name in {names}: importlib.import_module(name)\n"
    code += "from lightrft.cli import main\ntry: main(argv=['--help'])\nexcept SystemExit: pass\n"
    code += "sys.exit('torch is imported' if 'torch' in sys.modules else 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "lightrft.args.groups.model" in names and "lightrft.rewards.rules" in names


def test_files_and_functions_can_be_held_in_the_head():
    long = []
    for path in [*SOURCES, *PROGRAMS]:
        tree, lines = parsed(path), path.read_text().count("\n")
        if lines >= MOST_LINES:
            long.append(f"{path.relative_to(ROOT)} {lines} lines")
        for function in functions(tree):
            length = (function.end_lineno or 0) - function.lineno + 1
            if length >= MOST_LINES_OF_A_FUNCTION:
                long.append(f"{path.relative_to(ROOT)}:{function.lineno} {function.name} {length} lines")
    assert not long


def test_no_twins_and_no_drawers():
    names = [path.stem for path in SOURCES] + [path.name for path in PACKAGE.rglob("*") if path.is_dir()]
    assert not [name for name in names if DRAWERS.search(name)]


def test_constructors_get_their_own_arguments():
    """Not the whole namespace: only what parses, checks and builds sees all flags."""
    wrong = []
    for path in SOURCES:
        classes = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.ClassDef)]
        for made in (f for c in classes for f in functions(c) if f.name == "__init__"):
            taken = [a.annotation for a in [*made.args.args, *made.args.kwonlyargs] if a.annotation is not None]
            wrong += [f"{short(path)}:{made.lineno}" for a in taken if ast.unparse(a).split(" | ")[0] == "Args"]
    assert not wrong


def test_the_map_names_files_that_are_there():
    page = (ROOT / "docs" / "architecture.md").read_text()
    there = [f"/{path.relative_to(ROOT)}" for path in (*SOURCES, *PROGRAMS, *(ROOT / "tests").rglob("*.py"))]
    named = set(re.findall(r"(?<![\w<*])[a-z_][\w/]*\.py\b", page)) - {"file.py"}
    assert len(named) > 60
    assert not [name for name in named if not any(path.endswith(f"/{name}") for path in there)]


# What stands in the text of the repository

CACHES = ("__pycache__", "wandb", ".pytest_cache", ".ruff_cache", ".hypothesis")
MADE = (".git", "build", "dist", "models", "outputs", "runs")  # at the top; lightrft/build and lightrft/models are ours
HOSTS = ("pypi.org", "pythonhosted.org", "download.pytorch.org", "npmjs.org", "anaconda.org", "huggingface.co", "hf.co")
HOST = re.compile(r"(?:[a-z0-9-]+\.)*(?:" + "|".join(map(re.escape, HOSTS)) + r")|mirrors?\.[a-z0-9-]+\.[a-z]{2,}")
MACHINE_PATH = re.compile(r"(?<![\w.$}~/])/(?:work|root|home|Users|mnt|workspace)/\w")


def texts() -> Iterator[tuple[str, str]]:
    for folder, inner, names in os.walk(ROOT):
        left_out = {*CACHES, *(MADE if Path(folder) == ROOT else ())}
        inner[:] = sorted(n for n in inner if not (n in left_out or n.startswith(".venv") or n.endswith(".egg-info")))
        # .git is a file in a second checkout
        for path in (Path(folder, name) for name in names if name not in left_out):
            try:
                text = path.read_text(encoding="utf-8") if path != Path(__file__) else ""
            except (UnicodeDecodeError, FileNotFoundError):
                continue
            yield path.relative_to(ROOT).as_posix(), text


@pytest.mark.parametrize("pattern", (HOST, MACHINE_PATH), ids=("host", "path"))
def test_no_registry_host_and_no_path_of_one_machine(pattern):
    assert not [f"{name}: {match.group()}" for name, text in texts() for match in pattern.finditer(text)]


def test_every_file_of_ours_is_searched():
    names = {name for name, _ in texts()}
    assert {"lightrft/build/trainer.py", "lightrft/models/load.py", "README.md"} <= names
    assert not [name for name in names if name.startswith((".git/", ".venv", "outputs/"))]


def test_the_patterns_find_what_they_are_for():
    assert HOST.search("index = https://files.pythonhosted.org/simple") and HOST.search("mirrors.example.com")
    assert not HOST.search("hub.example")
    assert MACHINE_PATH.search("cd /root/x") and MACHINE_PATH.search("/home/me")
    assert not MACHINE_PATH.search("$HOME/work/x") and not MACHINE_PATH.search("https://host/work/x")


@pytest.mark.parametrize("name", ("train.py", "train_vl.py"))
def test_the_programs_are_ten_lines(name):
    assert len((ROOT / name).read_text().splitlines()) <= 10


def test_the_programs_differ_in_their_defaults_alone():
    words = "--pretrain x --prompt_data x --reward_fn exact --save_path x --train_batch_size 4 --rollout_batch_size 1"
    shown = []
    for name in ("train.py", "train_vl.py"):
        command = [sys.executable, name, *words.split(), "--print_args", "json"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        shown.append({flag: entry["value"] for flag, entry in json.loads(done.stdout).items()})
    assert {flag for flag in shown[0] if shown[0][flag] != shown[1][flag]} == {"max_pixels"}


def test_no_two_files_of_tests_have_one_name():
    """pytest imports them by their names alone, and refuses the second: not where each folder is run by itself."""
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert len(names) == len(set(names)), sorted({name for name in names if names.count(name) > 1})
