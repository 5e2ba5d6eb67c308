"""From command line and YAML files to the arguments of a run; every mistake in them is reported at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightrft.args.aliases import without_aliases
from lightrft.args.command_line import read_command_line
from lightrft.args.estimators import declared
from lightrft.args.presets import preset_file
from lightrft.args.rules import findings
from lightrft.args.rules.finding import Finding
from lightrft.args.settings import Problem, Setting
from lightrft.args.surface import FLAGS, Args, Hidden, Source, resolve
from lightrft.args.yaml_file import read_yaml
from lightrft.errors import Refused

NO_DEFAULTS: Mapping[str, object] = {}
PLACEHOLDERS = {int: 1, float: 1.0, str: "?"}


def parse(
    argv: Sequence[str],
    defaults: Mapping[str, object] = NO_DEFAULTS,
    *,
    world_size: int = 1,
) -> Args:
    """Command line > YAML (a later file wins) > the preset of --mode > `defaults` > the estimator's defaults > the
    fields' defaults.

    Raises Refused with one line for each unknown flag, wrong type, broken bound and missing flag, and then also for
    each broken rule between the flags that are well; where all is well the rules are left to `check`.
    """
    entries = without_aliases(_typed(argv))
    typed = _settings(entries)
    settings = [*_of_program(defaults), *_of_preset(_chosen("mode", typed)), *typed]
    problems = [entry for entry in entries if isinstance(entry, Problem)]
    broken = {flag for problem in problems for flag in problem.flags}
    settings = [*_of_estimator(settings), *settings]
    if "config" in broken:  # what the file would have set, nobody knows: it has to be mended first
        raise Refused("\n".join(map(str, problems)))
    missing = _missing(settings, broken)
    problems += [Problem((flag,), f"--{flag} is required") for flag in missing]
    args = _args(settings)
    if problems:
        of_rules = findings(args, world_size, strict=args.run.strict_args)
        sound = _sound(of_rules, broken.union(missing))
        raise Refused("\n".join(map(str, [*problems, *sound])))
    return args


def _typed(argv: Sequence[str]) -> list[Setting | Problem]:
    """Lowest precedence first; later words win, and later files."""
    words = _one_config(read_command_line(argv))
    files = [path for entry in words if isinstance(entry, Setting) and entry.flag == "config" for path in entry.value]
    return [entry for path in files for entry in read_yaml(path)] + words


def _one_config(words: Sequence[Setting | Problem]) -> list[Setting | Problem]:
    """`--config a.yaml --config b.yaml` is `--config a.yaml b.yaml`: no file is dropped in silence."""
    given = [entry for entry in words if isinstance(entry, Setting) and entry.flag == "config"]
    if len(given) < 2:
        return list(words)
    others = [entry for entry in words if entry not in given]
    return [*others, replace(given[-1], value=tuple(path for entry in given for path in entry.value))]


def _of_program(defaults: Mapping[str, object]) -> list[Setting]:
    unknown = defaults.keys() - FLAGS.keys()
    if unknown:
        raise KeyError(f"defaults for no such flag: {', '.join(sorted(unknown))}")
    return [Setting(flag, value, "default:program", typed=False) for flag, value in defaults.items()]


def _of_preset(mode: str | None) -> list[Setting]:
    """Defaults, not settings: nobody typed them, so they are not blamed for what they cannot change."""
    entries = read_yaml(str(preset_file(mode))) if mode else []
    wrong = [entry for entry in entries if isinstance(entry, Problem)]
    assert not wrong, f"preset {mode}: {wrong}"
    return [replace(entry, where=f"preset {Path(entry.where).name}", typed=False) for entry in _settings(entries)]


def _settings(entries: Sequence[Setting | Problem]) -> list[Setting]:
    return [entry for entry in entries if isinstance(entry, Setting)]


def _of_estimator(settings: Sequence[Setting]) -> list[Setting]:
    name = _chosen("advantage_estimator", settings)
    own = declared(name).defaults
    return [Setting(flag, value, f"default:{name}", typed=False) for flag, value in own.items()]


def _chosen(flag: str, settings: Sequence[Setting]) -> Any:
    values = [entry.value for entry in settings if entry.flag == flag]
    return values[-1] if values else FLAGS[flag].record.default


def _missing(settings: Sequence[Setting], broken: set[str]) -> list[str]:
    given = broken.union(entry.flag for entry in settings)
    return [flag.name for flag in FLAGS.values() if flag.record.required and flag.name not in given]


def _args(settings: Sequence[Setting]) -> Args:
    values: dict[str, Any] = {}
    sources: dict[str, Source] = {}
    for flag in FLAGS:
        *below, top = [_field_default(flag), *(entry for entry in settings if entry.flag == flag)]
        hides = tuple(Hidden(entry.where, entry.value, entry.name) for entry in reversed(below[1:]))
        values[flag], sources[flag] = top.value, Source(top.where, top.typed, hides, top.name)
    return resolve(values, sources)


def _field_default(name: str) -> Setting:
    """A required flag has none; its placeholder only lets the rules on other flags run before all is refused."""
    flag = FLAGS[name]
    placeholder = PLACEHOLDERS.get(flag.kind.of)
    value = (placeholder,) if flag.kind.shape == "list" else placeholder
    return Setting(name, value if flag.record.required else flag.record.default, "default", typed=False)


def _sound(of_rules: Sequence[Finding], broken: set[str]) -> list[Problem]:
    """Broken rules that rest on no flag which is broken itself."""
    return [entry for entry in of_rules if isinstance(entry, Problem) and not broken.intersection(entry.flags)]
