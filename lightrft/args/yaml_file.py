"""Flags from a YAML file, flat or under their group's name; every setting keeps its line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from lightrft.args.convert import from_node
from lightrft.args.names import about_other_meaning, about_unknown
from lightrft.args.peers import peer_of
from lightrft.args.settings import Problem, Setting, typed_setting
from lightrft.args.surface import FLAGS, GROUPS, NAMES, Flag

DEEPEST = 6  # levels of another trainer's settings that are followed
MEND = "write flag: value, one a line"
Entry = tuple[str, yaml.Node, int, str]  # key, value, line, group that it stands under or ""


def read_yaml(path: str) -> list[Setting | Problem]:
    text = ""
    try:
        text = Path(path).read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except OSError as error:
        return [Problem(("config",), f"--config {path}: {error.strerror}; give a YAML file")]
    except UnicodeDecodeError:
        return [Problem(("config",), f"--config {path}: not a UTF-8 text file; give a YAML file")]
    except yaml.YAMLError as error:
        return [Problem(("config",), f"{path}:{_error_line(text, error)}: broken YAML: {_cause(error)}; {MEND}")]
    except RecursionError:
        return [Problem(("config",), f"{path}:1: broken YAML: nested too deeply; {MEND}")]
    if root is None or root.tag.endswith(":null"):
        return []
    if not isinstance(root, yaml.MappingNode):
        return [Problem(("config",), f"{path}:{_line(root)}: must be a mapping of flags to values")]
    return _settings(path, root)


def _settings(path: str, root: yaml.MappingNode) -> list[Setting | Problem]:
    first_line: dict[str, int] = {}
    entries: list[Setting | Problem] = []
    for key, node, line, group in _entries(root):
        name = NAMES.get(key, key)
        if name in first_line:
            twice = f"{key} is set twice, first on line {first_line[name]}; remove one"
            entries.append(Problem((name,), f"{path}:{line}: {twice}"))
            continue
        first_line[name] = line
        entries.extend(_setting(path, (key, node, line, group)))
    return entries


def _entries(root: yaml.MappingNode) -> Iterator[Entry]:
    """Flat entries, and those of a group under the group's name. A second block of one group is no duplicate."""
    for key, node in root.value:
        if _name(key) in GROUPS and isinstance(node, yaml.MappingNode):
            for inner_key, inner in node.value:
                yield from _leaves(_name(inner_key), inner, _line(inner_key), _name(key))
        else:
            yield from _leaves(_name(key), node, _line(key), "")


def _leaves(name: str, node: yaml.Node, line: int, group: str) -> Iterator[Entry]:
    """An entry; of another trainer's nested settings each one, under its dotted name."""
    deep = name.count(".") >= DEEPEST  # a node may hold itself
    if name in NAMES or name in GROUPS or deep or not isinstance(node, yaml.MappingNode) or not node.value:
        yield name, node, line, group
        return
    for key, inner in node.value:
        yield from _leaves(f"{name}.{_name(key)}", inner, _line(key), group)


def _setting(path: str, entry: Entry) -> Iterator[Setting | Problem]:
    key, node, line, group = entry
    where = f"{path}:{line}"
    flag = FLAGS.get(NAMES.get(key, ""))
    if key in GROUPS and not group:
        if not node.tag.endswith(":null"):
            meant = f"; use {row.ours}" if (row := peer_of(key)) else ""
            yield Problem((), f"{where}: {key} is a group and must be a mapping of its flags{meant}")
    elif flag is None:
        value = node.value if isinstance(node, yaml.ScalarNode) else None
        yield Problem((), f"{where}: {about_unknown(key, dashes='', value=value, group=group)}")
    elif group and flag.group != group:
        value = node.value if isinstance(node, yaml.ScalarNode) else None
        if meant := about_other_meaning(f"{group}.{key}", flag.name, value):
            yield Problem((), f"{where}: {meant}")
        else:
            yield Problem((flag.name,), f"{where}: {key} does not belong under {group} but under {flag.group}")
    elif flag.name == "config":
        yield Problem((flag.name,), f"{where}: config cannot stand in a file; give all files to --config")
    else:
        yield typed_setting(flag, lambda: _value(flag, key, node), where, f"{where}: {key}")


def _value(flag: Flag, key: str, node: yaml.Node) -> Any:
    value = from_node(flag.kind, node)
    return flag.turned(key, value) if isinstance(value, bool) else value


def _name(key: yaml.Node) -> str:
    return key.value if isinstance(key, yaml.ScalarNode) else "a list or a mapping"


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1 if node.start_mark else 0


def _error_line(text: str, error: yaml.YAMLError) -> int:
    """A parser's error has a mark; one about a character has its position."""
    mark, position = getattr(error, "problem_mark", None), getattr(error, "position", 0)
    return mark.line + 1 if mark else text[:position].count("\n") + 1


def _cause(error: yaml.YAMLError) -> str:
    return getattr(error, "problem", None) or str(error).splitlines()[0]
