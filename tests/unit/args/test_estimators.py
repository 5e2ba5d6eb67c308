from __future__ import annotations

from pathlib import Path

import pytest
from command_lines import parsed, refused

from lightrft.args import estimators
from lightrft.args.estimators import estimator_defaults, estimator_kl, estimator_names, estimator_needs


def test_read_without_importing(estimator_folder: Path):
    assert estimator_names() == ("cpgd", "gae", "group_norm", "gspo", "reinforce")
    assert estimator_defaults("gspo", estimator_folder) == {"clip_range": 3e-4, "clip_range_higher": 4e-4}
    assert (estimator_needs("gspo"), estimator_needs("reinforce")) == (frozenset({"group"}), frozenset())
    assert (estimator_kl("group_norm"), estimator_kl("reinforce")) == ("loss", "reward")
    assert estimator_defaults("group_norm") == {}


def test_the_choices_are_the_files():
    assert refused("--advantage_estimator gspoo") == [
        "--advantage_estimator gspoo is not one of its choices: cpgd, gae, group_norm, gspo, reinforce; nearest: gspo"
    ]


def test_an_estimator_brings_its_defaults():
    args = parsed("--advantage_estimator gspo --clip_range 0.1")
    assert args.algorithm.clip_range_higher == 4e-4
    assert str(args.sources["clip_range_higher"]) == "default:gspo" and not args.typed("clip_range_higher")
    assert str(args.sources["clip_range"]) == "cli (hides default:gspo = 0.0003)"
    assert str(parsed().sources["clip_range"]) == "default"


@pytest.mark.parametrize(
    "text, message",
    [
        ("ESTIMATOR = 3", "declares no ESTIMATOR"),
        ("ESTIMATOR = Estimator(defaults=dict(x=1))", "must be a literal"),
        ("ESTIMATOR = Estimator(defaults={'gama': 1})", "no such flag: gama"),
    ],
)
def test_what_cannot_be_read_is_our_own_mistake(estimator_folder: Path, text: str, message: str):
    (estimator_folder / "odd.py").write_text(text)
    with pytest.raises(ValueError, match=message):
        parsed("--advantage_estimator odd")


def test_the_projects_own_estimators_can_be_read():
    real = Path(estimators.__file__).parent.parent / "algorithms" / "estimators"
    assert "group_norm" in estimator_names(real)
    for name in estimator_names(real):
        assert estimator_kl(name, real) in ("loss", "reward", "off") and isinstance(
            estimator_defaults(name, real), dict
        )
    assert "group" in estimator_needs("group_norm", real)
