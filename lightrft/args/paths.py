"""`~` and `$NAME` at work in every path, alike in YAML, where no shell expands them, and on the command line."""

from __future__ import annotations

import os
import re
from typing import Any

from lightrft.args.convert import Wrong

VARIABLE = re.compile(r"\$(?:\{(?P<braced>\w+)\}|(?P<plain>[A-Za-z_]\w*))")
HOME = re.compile(r"(?P<name>[\w.-]+=)?(?P<path>~.*)", re.DOTALL)  # also in name=path


def expanded(value: Any) -> Any:
    """A path, or several, with home folders and variables filled in.

    Raises Wrong for a user or a variable that is not there: a folder named `~` or `$HOME` is never made.
    """
    if isinstance(value, tuple):
        return tuple(map(expanded, value))
    return _at_home(_filled(value)) if isinstance(value, str) else value


def _filled(text: str) -> str:
    if "${" in VARIABLE.sub("", text):  # an interpolation of another configuration language
        raise Wrong(f"is {text!r}, and only $NAME and ${{NAME}} of the environment are filled in; write the whole path")
    return VARIABLE.sub(_variable, text)


def _variable(match: re.Match[str]) -> str:
    name = match["braced"] or match["plain"]
    if not os.environ.get(name):
        raise Wrong(f"is {match.string!r}, and {name} is not set in the environment; set it, or write the whole path")
    return os.environ[name]


def _at_home(text: str) -> str:
    match = HOME.fullmatch(text)
    if match is None:
        return text
    path = match["path"]
    absolute = path if os.environ.get("HOME") == "" else os.path.expanduser(path)  # else `~/x` would be `/x`
    if absolute == path:
        raise Wrong(f"is {text!r}, and {path.split('/')[0]} is no home folder here; write the whole path")
    return (match["name"] or "") + absolute
