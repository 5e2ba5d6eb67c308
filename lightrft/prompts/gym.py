"""Questions of reasoning_gym's procedural tasks, split so that train and test never share one."""

from __future__ import annotations

import ast
import difflib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from lightrft.args.groups.data import GENERATED
from lightrft.errors import Refused, error_text

SPLITS = ("train", "test")
# Of a task that has just `size` questions this draws almost surely all: size * ln(size) draws are expected.
DRAWS_PER_QUESTION = 50


@dataclass(frozen=True)
class _Spec:
    text: str
    task: str
    size: int = 500
    seed: int = 42
    test: float = 0.2
    config: Mapping[str, Any] = field(default_factory=dict)


def draw_entries(spec: str, split: str, flag: str = "--prompt_data") -> list[tuple[int, dict[str, Any]]]:
    """(draw's index, reasoning_gym entry) for each question of `split`.

    `spec` is `reasoning_gym:<task>?key=value&key=value`. Three keys are ours: `size` (default 500), the number of
    *distinct* questions of both splits together; `seed` (default 42); `test` (default 0.2), the share held out. All
    others go to the task. At most `50 * size` questions are drawn, so a task that has fewer distinct ones gives those.

    A question's own hash decides its split. So a question is never in both, whatever seed, size or task parameters
    the two specs have, as long as `test` is the same in both. Raises `Refused`.
    """
    if split not in SPLITS:
        raise Refused(f"{flag} {spec}: no split '{split}'; reasoning_gym has {' and '.join(SPLITS)}")
    parsed = _parse(spec, flag)
    dataset = _create(parsed, flag)
    try:
        drawn = list(_distinct(dataset, parsed.size))
    except Exception as error:  # a task's own code: we take whatever it raises for a fault of the parameters
        raise Refused(f"{flag} {spec}: drawing questions failed: {error_text(error)}") from error
    entries = [(index, entry) for index, entry in drawn if _split_of(entry["question"], parsed.test) == split]
    if not entries:
        empty = f"none of its {len(drawn)} questions is in split '{split}' with test={parsed.test}"
        raise Refused(f"{flag} {spec}: {empty}; change test or size")
    return entries


def _distinct(dataset: Any, size: int) -> Iterator[tuple[int, dict[str, Any]]]:
    seen: set[str] = set()
    for index in range(DRAWS_PER_QUESTION * size):
        try:
            entry = dataset[index]
        except IndexError:  # a task's way to say that it has no more
            return
        if entry["question"] not in seen:
            seen.add(entry["question"])
            yield index, entry
        if len(seen) == size:
            return


def _split_of(question: str, test: float) -> str:
    fraction = int.from_bytes(hashlib.sha256(question.encode()).digest()[:8], "big") / 2**64
    return "test" if fraction < test else "train"


def _create(spec: _Spec, flag: str) -> Any:
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise Refused(f"{flag} {spec.text} needs a package: pip install reasoning-gym ({error})") from None
    if spec.task not in DATASETS:
        near = difflib.get_close_matches(spec.task, DATASETS, n=3, cutoff=0.4)
        hint = f"nearest: {', '.join(near)}" if near else "see reasoning_gym's gallery"
        raise Refused(f"{flag} {spec.text}: reasoning_gym has no task '{spec.task}'; {hint}")
    _check_parameters(spec, [entry.name for entry in fields(DATASETS[spec.task][1])], flag)
    try:
        return reasoning_gym.create_dataset(
            spec.task, **spec.config, seed=spec.seed, size=DRAWS_PER_QUESTION * spec.size
        )
    except Exception as error:  # configurations check themselves with assert, ValueError or TypeError
        raise Refused(f"{flag} {spec.text}: the task refuses its parameters: {error_text(error)}") from error


def _check_parameters(spec: _Spec, known: list[str], flag: str) -> None:
    for name in spec.config:
        if name not in known:
            names = sorted({*known, "size", "seed", "test"})
            raise Refused(f"{flag} {spec.text}: no parameter '{name}'; {spec.task} has {', '.join(names)}")


def _parse(spec: str, flag: str) -> _Spec:
    task, _, query = spec.removeprefix(GENERATED).partition("?")
    values: dict[str, Any] = {}
    for item in query.split("&") if query else []:
        key, equals, text = item.partition("=")
        if not (key and equals and text) or key in values:
            raise Refused(f"{flag} {spec}: '{item}' is not one key=value, each key once")
        values[key] = _literal(text)
    ours = {key: values.pop(key) for key in ("size", "seed", "test") if key in values}
    parsed = _Spec(spec, task, **ours, config=values)
    _check_ours(parsed, flag)
    return parsed


def _check_ours(spec: _Spec, flag: str) -> None:
    if type(spec.size) is not int or spec.size < 1:
        raise Refused(f"{flag} {spec.text}: size={spec.size} must be a whole number from 1 on, such as 500")
    if type(spec.seed) is not int or spec.seed < 0:
        raise Refused(f"{flag} {spec.text}: seed={spec.seed} must be a whole number from 0 on, such as 42")
    if type(spec.test) not in (int, float) or not 0 <= spec.test <= 1:
        raise Refused(f"{flag} {spec.text}: test={spec.test} must be a share between 0 and 1, such as 0.2")


def _literal(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
