"""`--mode`: defaults for one kind of machine, as a YAML file in lightrft/presets."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent.parent / "presets"


def preset_names() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def preset_file(mode: str) -> Path:
    return FOLDER / f"{mode}.yaml"
