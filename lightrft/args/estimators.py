"""What an estimator's file declares, read without importing it, so that `--help` needs no torch.

An estimator is one file. The value of the flag is its name, or the path of a .py file of the user's own. All of its
`ESTIMATOR = Estimator(...)` but the functions are therefore literals.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from lightrft.args.nearest import nearest
from lightrft.errors import Refused

FOLDER = Path(__file__).parent.parent / "algorithms" / "estimators"
AGGREGATIONS = (
    *("token-mean", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm", "prompt-mean-token-mean"),
)
WORDS = {
    "aggregation": AGGREGATIONS,
    "kl": ("loss", "reward", "off"),
    "whitening": ("part", "optional", "never"),
    "per_row": (False, True),
    "judges": ("token", "row", "batch"),
    "idle_without_advantage": (False, True),
}
NEEDS = ("group", "critic")
FUNCTIONS = ("advantage", "policy_loss")
FIELDS = (*FUNCTIONS, "drift", *WORDS, "needs", "defaults", "ignores", "paper")
UNREAD = {"paper", "judges", "idle_without_advantage"}  # by what asks for no torch
FORMER = {"by_token": "; by_token=True is now judges='token'"}
SUFFIX = ".py"


class Fault(Exception):
    """What is wrong with an estimator's file, and where in it."""


@dataclass(frozen=True)
class Declared:
    """The literals of an ESTIMATOR; algorithms/estimator.py says what each means."""

    aggregation: str
    kl: str = "loss"
    whitening: str = "never"
    per_row: bool = False
    drifts: bool = False
    needs: frozenset[str] = frozenset()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    ignores: frozenset[str] = frozenset()

    def kl_place(self, use_kl_loss: bool | None) -> str:
        """Where the KL term of `--init_kl_coef` stands: "drift", "loss", "reward" or "off" (algorithms S6.3)."""
        if self.drifts:
            return "drift"
        if use_kl_loss is None:
            return self.kl
        return "loss" if use_kl_loss else ("reward" if self.kl == "reward" else "off")


def estimator_names(folder: Path | None = None) -> tuple[str, ...]:
    files = (folder or FOLDER).glob(f"*{SUFFIX}")
    return tuple(sorted(path.stem for path in files if not path.stem.startswith("_")))


def own_estimator(name: str) -> Path | None:
    """The user's file, where the flag names one."""
    return Path(name) if name.endswith(SUFFIX) else None


def declared(name: str, folder: Path | None = None) -> Declared:
    """Raises Refused for a file that cannot be read so."""
    try:
        return read_estimator(name, folder)
    except Fault as fault:
        raise Refused(f"--advantage_estimator {name}: {fault}") from fault


def read_estimator(name: str, folder: Path | None = None) -> Declared:
    path = own_estimator(name) or (folder or FOLDER) / f"{name}{SUFFIX}"
    try:
        stat = path.stat()
    except OSError as error:
        raise Fault(f"{error.strerror}: {path} (looked in {Path.cwd()})") from error
    return _read(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=64)
def _read(path: Path, changed: int, size: int) -> Declared:
    """`changed` and `size` are there to read a file again when it is another one."""
    keywords = {str(entry.arg): entry for entry in _declaration(path).keywords}
    for word, entry in keywords.items():
        if word not in FIELDS:
            raise Fault(f"{path}:{entry.value.lineno}: {_no_field(word)}")
    lacks = [word for word in (*FUNCTIONS, "aggregation") if word not in keywords]
    if lacks:
        raise Fault(f"{path}: ESTIMATOR = Estimator(...) lacks {lacks[0]}=")
    literals = {word: _literal(path, entry) for word, entry in keywords.items() if word not in (*FUNCTIONS, "drift")}
    for word in literals.keys() - {"paper"}:
        _check(f"{path}:{keywords[word].value.lineno}", word, literals[word])
    if literals.get("per_row") and literals.get("judges") == "token":
        raise Fault(f"{path}:{keywords['judges'].value.lineno}: judges='token' excludes per_row=True")
    read = {word: literals[word] for word in literals.keys() - UNREAD}
    sets = {word: frozenset(read[word]) for word in ("needs", "ignores") if word in read}
    return Declared(**{**read, **sets}, drifts="drift" in keywords)


def _no_field(word: str) -> str:
    if word == "None":
        return "ESTIMATOR must be written out, without **"
    return f"{word} is no field{FORMER.get(word) or nearest(word, FIELDS)}"


def _literal(path: Path, entry: ast.keyword) -> Any:
    try:
        if ast.unparse(entry.value) in ("set()", "frozenset()", "dict()"):
            return set()
        return ast.literal_eval(entry.value)
    except (ValueError, TypeError) as error:
        raise Fault(f"{path}:{entry.value.lineno}: {entry.arg}= of ESTIMATOR must be a literal") from error


def _check(where: str, word: str, value: Any) -> None:
    if word in WORDS:
        if value not in WORDS[word]:
            raise Fault(f"{where}: {word}={value!r} is none of {', '.join(map(repr, WORDS[word]))}")
    elif isinstance(value, str) or not isinstance(value, (set, frozenset, tuple, list, dict)):
        raise Fault(f"{where}: {word}={value!r} must be {'a mapping' if word == 'defaults' else 'a set of names'}")
    elif word == "defaults" and value and not isinstance(value, dict):
        raise Fault(f"{where}: defaults={value!r} must be a mapping of flags to values")
    for item in value if word == "needs" else ():
        if item not in NEEDS:
            raise Fault(f"{where}: needs={item!r} is none of {', '.join(map(repr, NEEDS))}{nearest(item, NEEDS)}")


def _declaration(path: Path) -> ast.Call:
    try:
        body = ast.parse(path.read_text(encoding="utf-8")).body
    except SyntaxError as error:
        raise Fault(f"{path}:{error.lineno or 1}: {error.msg}") from error
    except (OSError, ValueError, RecursionError) as error:
        cause = getattr(error, "strerror", None) or "not a Python file in UTF-8"
        raise Fault(f"{path}: {cause}") from error
    for node in body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        named = any(isinstance(target, ast.Name) and target.id == "ESTIMATOR" for target in targets)
        if named and isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, ast.Call):
            if node.value.args:
                raise Fault(f"{path}:{node.lineno}: the fields of ESTIMATOR must be given by name")
            return node.value
    raise Fault(f"{path} declares no ESTIMATOR = Estimator(...)")
