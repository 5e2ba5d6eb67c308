import subprocess
import sys
import time
from dataclasses import replace
from threading import Thread

import pytest

from lightrft.errors import Refused
from lightrft.rewards.combine import build_rewards
from lightrft.rewards.math_process import MathProcess
from lightrft.rewards.rules import RULES, RuleReward

SEVEN = (r"\boxed{7}", "7", False)


@pytest.fixture(scope="module")
def process():
    made = MathProcess(limit_s=0.5)
    yield made
    made.close()


def test_it_judges_as_in_this_process_and_goes_on_after_an_error(process):
    assert process.judge(*SEVEN) == 1.0
    with pytest.raises(ValueError, match="^the reference '' cannot be read as mathematics"):
        process.judge("7", "", False)
    assert process.judge("8 \ud800 \n \x00", "7", False) == 0.0
    assert process.judge("7", "7", True) == 0.0


@pytest.mark.parametrize(
    "response",
    [
        "$9^{9^{9^9}}$",  # one call of the interpreter: no Python signal handler would run
        r"\boxed{(10^9)!}",
        "$" + "{" * 3000 + "1" + "}" * 3000 + "$",
    ],
)
def test_what_takes_too_long_ends_the_child_only(process, response):
    started = time.monotonic()
    with pytest.raises(ValueError, match="could not be compared within 0.5 s of processor time"):
        process.judge(response, "7", False)
    assert time.monotonic() - started < 30
    assert process.judge(*SEVEN) == 1.0


def test_a_child_that_was_killed_is_replaced(process):
    process.judge(*SEVEN)
    process._child.kill()
    with pytest.raises(ValueError, match=r"ended the process that does it \(exit code -9\)"):
        process.judge(*SEVEN)
    assert process.judge(*SEVEN) == 1.0


def test_each_thread_gets_its_own_answers(process):
    def ask(number):
        for other in range(40):
            found.append(process.judge(f"it is {other}", str(number), False) == float(other == number))

    found: list[bool] = []
    threads = [Thread(target=ask, args=(number,), daemon=True) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert found == [True] * 320


def test_the_child_ends_with_its_parent():
    """It shares its parent's stderr, so that this pipe stays open until both have ended."""
    code = (
        "import os; from lightrft.rewards.math_process import MathProcess; process = MathProcess(); "
        f"assert process.judge(*{SEVEN!r}) == 1.0; os.kill(os.getpid(), 9)"
    )
    ended = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, timeout=60)
    assert ended.returncode == -9, ended.stderr


def test_the_rules_make_samples_right_wrong_or_invalid(rollout):
    rows = [rollout(r"\boxed{\frac12}", 0.5), rollout("it is $0.5$", "1/2"), rollout("", "2"), rollout("2", "?!")]
    rows.append(rollout("2"))
    loose, boxed = RuleReward("math").score(rows), RuleReward("boxed").score(rows)
    assert [reward.total for reward in loose[:3]] == [1.0, 1.0, 0.0]
    assert [reward.total for reward in boxed[:3]] == [1.0, 0.0, 0.0]
    for reward in (loose[3], boxed[3]):
        assert reward.error.startswith("ValueError: the reference '?!' cannot be read as mathematics")
    assert "the row has no reference; --label_key" in loose[4].error


def test_without_the_package_the_rule_is_refused_before_the_run(monkeypatch, rollout):
    prompts = [rollout("", "1").prompt]
    assert build_rewards(["math"], {}, prompts).primary == "math"
    monkeypatch.setitem(RULES, "math", replace(RULES["math"], packages=("no_such_package_here",)))
    with pytest.raises(Refused, match=r"^--reward_fn math needs .*: pip install 'math-verify\[antlr4_13_2\]'$"):
        build_rewards(["math"], {}, prompts)


def test_judging_needs_no_sympy_in_this_process():
    code = "import sys, lightrft.rewards.combine; assert not {'sympy', 'math_verify', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
