"""docs/arguments.md, made from the flags' own records: `python -m lightrft.args.docs > docs/arguments.md`."""

from __future__ import annotations

from collections.abc import Iterator

from lightrft.args.estimators import declared, estimator_names
from lightrft.args.field import as_text
from lightrft.args.presets import FOLDER, preset_names
from lightrft.args.surface import FLAGS, GROUPS, Flag

HEAD = """# Arguments

Every flag of `train.py` and `train_vl.py`. This page is generated: `python -m lightrft.args.docs > docs/arguments.md`;
a test fails when it is stale. [configuration.md](configuration.md) says where values come from and which wins.

Every switch has a `--no-` form. A flag that is *not built yet* is refused when it is set. A number outside its
recommended range gives a notice, one outside its bounds is refused.
"""
TYPES = {int: "integer", float: "number", str: "text", bool: "switch"}


def page() -> str:
    groups = (line for group, cls in GROUPS.items() for line in _group(group, cls.__doc__ or group))
    return "\n".join([HEAD, *groups, *_estimators(), *_presets()])


def _group(group: str, title: str) -> Iterator[str]:
    yield f"## {title}\n\n| flag | type | default | what it does |\n|---|---|---|---|"
    yield from (_row(flag) for flag in FLAGS.values() if flag.group == group)
    yield ""


def _row(flag: Flag) -> str:
    names = ", ".join(f"`--{name}`" for name in (flag.name, *flag.record.aliases))
    cells = [names, _type(flag), _default(flag), " ".join([flag.record.help, *_facts(flag)])]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _type(flag: Flag) -> str:
    word, kind = "path" if flag.record.path and not flag.record.choices else TYPES[flag.kind.of], flag.kind
    if kind.shape == "pairs":
        return "`name=number` …"
    if kind.count:
        return f"{kind.count} {word}s"
    return f"{word} …" if kind.shape == "list" else word


def _default(flag: Flag) -> str:
    record = flag.record
    if record.required:
        return "**required**"
    return record.unset or f"`{as_text(record.default)}`"


def _facts(flag: Flag) -> Iterator[str]:
    record = flag.record
    if record.allowed() is not None:
        yield f"One of {', '.join(f'`{choice}`' for choice in record.allowed() or ())}."
    if record.opposites:
        yield f"{', '.join(f'`--{name}`' for name in record.opposites)} switches it off."
    if record.bounds():
        yield f"Bounds: {record.bounds()}."
    if record.recommended:
        yield "Recommended: {:g} to {:g}.".format(*record.recommended)
    if record.unbuilt:
        yield f"*Not built yet ({record.unbuilt}).*"


def _estimators() -> Iterator[str]:
    yield "## Defaults of the estimators\n\n| estimator | its own defaults |\n|---|---|"
    for name in estimator_names():
        own = " ".join(f"`--{flag} {as_text(value)}`" for flag, value in declared(name).defaults.items())
        yield f"| `{name}` | {own or 'none'} |"
    yield ""


def _presets() -> Iterator[str]:
    yield "## Presets of `--mode`\n"
    for name in preset_names():
        text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").rstrip()
        yield f"`{name}`:\n\n```yaml\n{text}\n```\n"


if __name__ == "__main__":
    print(page(), end="")
