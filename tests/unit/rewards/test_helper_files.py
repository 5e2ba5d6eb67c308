import sys
from pathlib import Path

import numpy
import pytest

import lightrft
from lightrft.errors import Refused
from lightrft.rewards.functions import FunctionReward

COUNT = "import builtins\nbuiltins.EXECUTED = getattr(builtins, 'EXECUTED', []) + [__name__]\n"
SCORE = "def score(responses):\n    return [helper.VALUE] * len(responses)\n"


SUM = SCORE.replace("helper.VALUE", "helper.value() + ADD")


@pytest.fixture
def executed():
    """Names of the modules that wrote themselves down."""
    import builtins

    builtins.EXECUTED = []
    yield lambda: builtins.EXECUTED
    del builtins.EXECUTED


def write(folder, **files):
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def total(rollout, spec):
    [reward] = FunctionReward(str(spec), set()).score([rollout("a")])
    return reward.total if reward.error is None else reward.error


def test_a_file_is_executed_once_for_all_its_functions(tmp_path, executed, rollout):
    write(tmp_path, mine=COUNT + "def f(responses): return [1]\ndef g(responses): return [2]\n")
    (tmp_path / "linked.py").symlink_to(tmp_path / "mine.py")
    specs = [tmp_path / "mine.py:f", tmp_path / "mine.py:g", tmp_path / "linked.py:f", tmp_path / "mine.py:f"]
    assert [total(rollout, spec) for spec in specs] == [1.0, 2.0, 1.0, 1.0]
    assert len(executed()) == 1
    write(tmp_path, mine=COUNT + "def f(responses): return [3]\n")
    assert total(rollout, specs[0]) == 3.0


def test_a_helper_beside_the_file_is_imported_once_and_by_it_alone(tmp_path, executed, rollout):
    write(
        tmp_path,
        my=COUNT + "import helper\nfrom package.part import ADD\n" + SUM,
        other="from helper import value\ndef score(responses): return [value() * 10]\n",
        helper=COUNT + "def value():\n    import late\n    return late.VALUE\n",
        late=COUNT + "import my\nVALUE = 2\n",
    )
    part = "from package import two\nADD = two.ADD\n"
    write(tmp_path / "package", __init__="", part=part, two="import late\nADD = 5\n")
    before = set(sys.modules), list(sys.path), list(sys.meta_path)
    assert total(rollout, tmp_path / "my.py:score") == 7.0
    assert total(rollout, tmp_path / "my.py:score") == 7.0
    assert executed()[1:] == ["helper", "late"] and executed()[0].startswith("own_file_")
    new = set(sys.modules) - before[0]
    assert [name for name in new if not name.startswith("own_file_")] == []
    assert (sys.path, sys.meta_path) == before[1:]
    assert not list(tmp_path.rglob("__pycache__"))


def test_two_files_have_helpers_of_the_same_name(tmp_path, rollout):
    for number in (1, 2):
        write(tmp_path / str(number), my="import helper\n" + SCORE, helper=f"VALUE = {number}\n")
    assert [total(rollout, tmp_path / f"{number}/my.py:score") for number in (1, 2, 1)] == [1.0, 2.0, 1.0]
    first, second = (FunctionReward(f"{tmp_path}/{number}/my.py:score", set()) for number in (1, 2))
    assert [made.score([rollout("a")])[0].total for made in (second, first, second)] == [2.0, 1.0, 2.0]


def test_a_helper_whose_name_means_another_module_is_refused(tmp_path, rollout):
    write(tmp_path, my="def score(responses):\n    import numpy\n    return [1]\n", numpy="VALUE = 1\n")
    with pytest.raises(Refused, match=r"'import numpy' in my.py means .*numpy/__init__.py, not .*numpy.py; ren"):
        FunctionReward(f"{tmp_path}/my.py:score", set())
    write(tmp_path / "in", my="import helper\n" + SCORE, helper="import numpy\nVALUE = 1\n", numpy="")
    with pytest.raises(Refused, match="'import numpy' in helper.py means"):
        FunctionReward(f"{tmp_path}/in/my.py:score", set())


def test_a_link_to_the_module_that_a_name_means_is_that_module(tmp_path, rollout):
    """Such as lightrft/ beside a reward, in a folder that is no checkout."""
    text = "import numpy\nfrom lightrft import types\nVALUE = types.Prompt and numpy.prod([2, 3])\n"
    write(tmp_path, my=text + SCORE.replace("helper.", ""))
    for module in (lightrft, numpy):
        (tmp_path / module.__name__).symlink_to(Path(module.__file__).parent)
    assert total(rollout, tmp_path / "my.py:score") == 6.0


def test_the_standard_library_wins_and_folders_without_modules_do_not_count(tmp_path, rollout):
    write(tmp_path, my="import random\nimport numpy\nVALUE = random.Random(1) and 4\n" + SCORE.replace("helper.", ""))
    write(tmp_path, random="raise RuntimeError")
    write(tmp_path / "numpy")
    assert total(rollout, tmp_path / "my.py:score") == 4.0


def test_a_helper_that_failed_is_tried_again(tmp_path, rollout):
    write(tmp_path, my="def score(responses):\n    import helper\n    return [helper.VALUE]\n", helper="1 / 0\n")
    made = FunctionReward(f"{tmp_path}/my.py:score", set())
    for _ in range(2):
        [reward] = made.score([rollout("a")])
        assert reward.error == "ZeroDivisionError: division by zero  (my.py:2)"


def test_a_helper_that_fails_or_is_missing_is_one_line(tmp_path, rollout):
    write(tmp_path, my="import helper\n" + SCORE, helper="1 / 0\n")
    failed = "my.py:score: importing the file failed: "
    with pytest.raises(Refused, match=failed + r"ZeroDivisionError: division by zero \(line 1\)$"):
        FunctionReward(f"{tmp_path}/my.py:score", set())
    (tmp_path / "helper.py").unlink()
    with pytest.raises(Refused, match=failed + r"ModuleNotFoundError: No module named 'helper' \(line 1\)$"):
        FunctionReward(f"{tmp_path}/my.py:score", set())
    assert "helper" not in sys.modules
