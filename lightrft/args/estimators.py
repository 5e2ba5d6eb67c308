"""What an estimator's file declares, read without importing it, so that `--help` needs no torch.

An estimator is one file; its name is the flag's value. `defaults=`, `needs=`, `kl=`, `ignores=`, `whitening=` and
`per_row=` of its `ESTIMATOR = Estimator(...)` are therefore literals.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightrft.args.surface import Args

FOLDER = Path(__file__).parent.parent / "algorithms" / "estimators"


def estimator_names(folder: Path | None = None) -> tuple[str, ...]:
    files = (folder or FOLDER).glob("*.py")
    return tuple(sorted(path.stem for path in files if not path.stem.startswith("_")))


def estimator_defaults(name: str, folder: Path | None = None) -> dict[str, Any]:
    return dict(_declared(name, "defaults", folder) or {})


def estimator_needs(name: str, folder: Path | None = None) -> frozenset[str]:
    return frozenset(_declared(name, "needs", folder) or ())


def no_critic(args: Args) -> str | None:
    """Why a flag of the critic cannot matter."""
    name = args.algorithm.advantage_estimator
    return None if "critic" in estimator_needs(name) else f"--advantage_estimator {name} has no critic"


def estimator_kl(name: str, folder: Path | None = None) -> str:
    """Where the estimator puts the KL to the reference: "loss", "reward" or "off"."""
    return _declared(name, "kl", folder) or "loss"


def kl_place(args: Args) -> str:
    """Where the KL term of `--init_kl_coef` stands: "drift", "loss", "reward" or "off" (algorithms S6.3)."""
    name, asked = args.algorithm.advantage_estimator, args.algorithm.use_kl_loss
    if estimator_drifts(name):
        return "drift"
    own = estimator_kl(name)
    if asked is None:
        return own
    return "loss" if asked else ("reward" if own == "reward" else "off")


def estimator_ignores(name: str, folder: Path | None = None) -> frozenset[str]:
    return frozenset(_declared(name, "ignores", folder) or ())


def estimator_whitening(name: str, folder: Path | None = None) -> str:
    """Whether advantages are whitened: "part" of it, "optional", or "never"."""
    return _declared(name, "whitening", folder) or "never"


def estimator_per_row(name: str, folder: Path | None = None) -> bool:
    return bool(_declared(name, "per_row", folder))


def estimator_drifts(name: str, folder: Path | None = None) -> bool:
    keywords = _declaration((folder or FOLDER) / f"{name}.py").keywords
    return any(entry.arg == "drift" for entry in keywords)


def _declared(name: str, keyword: str, folder: Path | None) -> Any:
    """The literal given for `keyword`, or None where the estimator does not give it."""
    path = (folder or FOLDER) / f"{name}.py"
    values = {entry.arg: entry.value for entry in _declaration(path).keywords}
    try:
        return ast.literal_eval(values[keyword]) if keyword in values else None
    except ValueError as error:
        raise ValueError(f"{path}: {keyword}= of ESTIMATOR must be a literal") from error


def _declaration(path: Path) -> ast.Call:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        named = any(isinstance(target, ast.Name) and target.id == "ESTIMATOR" for target in targets)
        if named and isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, ast.Call):
            return node.value
    raise ValueError(f"{path} declares no ESTIMATOR = Estimator(...)")
