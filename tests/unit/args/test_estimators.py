from __future__ import annotations

import sys
from pathlib import Path

import pytest
from command_lines import parsed, refused

from lightrft.args import estimators
from lightrft.args.estimators import declared, estimator_names


def test_read_without_importing(estimator_folder: Path):
    assert estimator_names() == ("cpgd", "gae", "group_norm", "gspo", "reinforce")
    assert declared("gspo", estimator_folder).defaults == {"clip_range": 3e-4, "clip_range_higher": 4e-4}
    assert (declared("gspo").needs, declared("reinforce").needs) == (frozenset({"group"}), frozenset())
    assert (declared("group_norm").kl, declared("reinforce").kl) == ("loss", "reward")
    assert declared("group_norm").defaults == {}


def test_the_choices_are_the_files():
    assert refused("--advantage_estimator gspoo") == [
        "--advantage_estimator gspoo is not one of its choices: cpgd, gae, group_norm, gspo, reinforce, or a "
        ".py file; nearest: gspo"
    ]


def test_an_estimator_brings_its_defaults():
    args = parsed("--advantage_estimator gspo --clip_range 0.1")
    assert args.algorithm.clip_range_higher == 4e-4
    assert str(args.sources["clip_range_higher"]) == "default:gspo" and not args.typed("clip_range_higher")
    assert str(args.sources["clip_range"]) == "cli (hides default:gspo = 0.0003)"
    assert str(parsed().sources["clip_range"]) == "default"


GOOD = 'advantage=a, policy_loss=b, aggregation="token-mean"'
LITERAL = "defaults of ESTIMATOR"


def own(more: str) -> str:
    return f"ESTIMATOR = Estimator({GOOD}, {more})"


@pytest.mark.parametrize(
    "text, fault",
    [
        ("ESTIMATOR = 3", " declares no ESTIMATOR = Estimator(...)"),
        ("", " declares no ESTIMATOR = Estimator(...)"),
        ("ESTIMATOR = (", ":1: '(' was never closed"),
        ("ESTIMATOR = Estimator(advantage=a, policy_loss=b)", ": ESTIMATOR = Estimator(...) lacks aggregation="),
        ("ESTIMATOR = Estimator(a, b)", ":1: the fields of ESTIMATOR must be given by name"),
        (own("**x"), ":1: ESTIMATOR must be written out, without **"),
        (own("\n  need={'group'}"), ":2: need is no field; nearest: needs"),
        (own("by_token=True"), ":1: by_token is no field; by_token=True is now judges='token'"),
        (own("defaults=dict(x=1)"), ":1: defaults= of ESTIMATOR must be a literal"),
        (own("needs={'groups'}"), ":1: needs='groups' is none of 'group', 'critic'; nearest: "
         "group"),
        (own("needs='group'"), ":1: needs='group' must be a set of names"),
        (own("kl='rewards'"), ":1: kl='rewards' is none of 'loss', 'reward', 'off'"),
        (own("kl=None"), ":1: kl=None is none of 'loss', 'reward', 'off'"),
        (own("whitening='always'"), ":1: whitening='always' is none of 'part', 'optional', "
         "'never'"),
        (own("per_row='yes'"), ":1: per_row='yes' is none of False, True"),
        (own("per_row=True, judges='token'"), ":1: judges='token' excludes per_row=True"),
        (own("defaults={'gama'}"), ":1: defaults={'gama'} must be a mapping of flags to values"),
        (own("defaults={'gama': 1.0}"), f": {LITERAL}: no such flag: gama; nearest: "
         "gamma"),
        (own("ignores=['dual_clips']"), ": ignores of ESTIMATOR: no such flag: dual_clips; "
         "nearest: dual_clip"),
        (own("defaults={'clip_range': '0.2'}"), f": {LITERAL}: clip_range 0.2 is not "
         "of the flag's type"),
        (own("defaults={'clip_range': 2.0}"), f": {LITERAL}: clip_range 2 is out of "
         "bounds: it must be > 0 and < 1"),
        (own("defaults={'kl_estimator': 'k4'}"), f": {LITERAL}: kl_estimator k4 is "
         "not one of its choices: k1, k2, k3"),
        (own("defaults={'save_path': 'x'}"), f": {LITERAL}: save_path x: this flag "
         "cannot have a default of an estimator"),
        (own("defaults={'eval_n_samples': 8}"), f": {LITERAL}: eval_n_samples 8: this flag "
         "cannot have a default of an estimator"),
        (GOOD.replace("token-mean", "tokenmean").join(["ESTIMATOR = Estimator(", ")"]),
         ":1: aggregation='tokenmean' is none of 'token-mean', 'seq-mean-token-sum', 'seq-mean-token-mean', "
         "'seq-mean-token-sum-norm', 'prompt-mean-token-mean'"),
        ("\0", ":None: source code string cannot contain null bytes"),
    ],
)  # fmt: skip
def test_one_line_names_file_and_word(tmp_path: Path, estimator_folder: Path, text: str, fault: str):
    """In a file of one's own, and in one beside ours."""
    (tmp_path / "odd.py").write_text(text)
    (line,) = refused(f"--advantage_estimator {tmp_path}/odd.py")
    (estimator_folder / "odd.py").write_text(text)
    (beside,) = refused("--advantage_estimator odd")
    if "null" in fault:  # Python's own wording; before 3.11.4 it is no syntax error
        says = "null bytes" if sys.version_info >= (3, 11, 4) else "not a Python file"
        assert says in line and says in beside
    else:
        assert line == f"--advantage_estimator {tmp_path}/odd.py: {tmp_path}/odd.py{fault}"
        assert beside.startswith("--advantage_estimator odd: ") and fault.partition(": ")[2] in beside


def test_files_that_cannot_be_read(tmp_path: Path):
    assert refused("--advantage_estimator none.py") == [
        f"--advantage_estimator none.py: No such file or directory: none.py (looked in {Path.cwd()})"
    ]
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "latin.py").write_bytes(b"x = '\xe9'")
    assert refused(f"--advantage_estimator {tmp_path}/folder.py")[0].endswith("folder.py: Is a directory")
    assert refused(f"--advantage_estimator {tmp_path}/latin.py")[0].endswith("latin.py: not a Python file in UTF-8")


def test_a_broken_file_is_one_problem_among_others(tmp_path: Path):
    (tmp_path / "run.yaml").write_text("advantage_estimator: none.py\nsed: 1\n")
    lines = refused(f"--config {tmp_path}/run.yaml --top_k 0")
    assert len(lines) == 3 and lines[0].startswith(f"{tmp_path}/run.yaml:1: advantage_estimator none.py: No such file")


def test_a_file_of_ones_own_brings_its_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """From any folder, from home, and with the name of one of ours; read again when it has changed."""
    file = tmp_path / "gspo.py"
    file.write_text(own("needs={'critic'}, kl='reward', defaults={'clip_range': 0.11}"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for written in (str(file), "~/gspo.py"):
        args = parsed(f"--advantage_estimator {written}")
        assert (args.algorithm.clip_range, args.algorithm.clip_range_higher) == (0.11, 0.3)
        assert str(args.sources["clip_range"]) == f"default:{file}" and args.algorithm.kl_estimator == "k1"
        assert declared(str(file)).needs == {"critic"}
    file.write_text(own("defaults={'clip_range': 0.125}"))
    assert parsed(f"--advantage_estimator {file}").algorithm.clip_range == 0.125


def test_the_projects_own_estimators_can_be_read():
    real = Path(estimators.__file__).parent.parent / "algorithms" / "estimators"
    assert "group_norm" in estimator_names(real)
    for name in estimator_names(real):
        assert declared(name, real).kl in ("loss", "reward", "off") and isinstance(declared(name, real).defaults, dict)
    assert "group" in declared("group_norm", real).needs
