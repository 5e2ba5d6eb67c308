import subprocess
import sys
from dataclasses import replace

import pytest
from test_math_answers import DIFFERENT, SAME

from lightrft.errors import Refused
from lightrft.rewards.combine import build_rewards
from lightrft.rewards.rules import RULES, RuleReward
from lightrft.rewards.sandbox.process import Limits, Sandbox, Unjudged, sandbox


def test_the_rules_make_samples_right_wrong_or_invalid(rollout):
    rows = [rollout(r"\boxed{\frac12}", 0.5), rollout("it is $0.5$", "1/2"), rollout("", "2"), rollout("2", "?!")]
    rows.append(rollout("2"))
    loose, boxed = RuleReward("math").score(rows), RuleReward("boxed").score(rows)
    assert [reward.total for reward in loose[:3]] == [1.0, 1.0, 0.0]
    assert [reward.total for reward in boxed[:3]] == [1.0, 0.0, 0.0]
    for reward in (loose[3], boxed[3]):
        assert reward.error.startswith("ValueError: the reference '?!' cannot be read as mathematics")
    assert "the row has no reference" in loose[4].error


def test_the_sandbox_changes_no_verdict():
    child = sandbox("lightrft.rewards.answers.math_answers")
    for verdict, pairs in ((1.0, SAME), (0.0, DIFFERENT)):
        for pair in pairs:
            assert child.ask("judge", *pair, False, what="comparing") == verdict, pair


def test_what_takes_too_long_makes_that_answer_invalid():
    child = Sandbox("lightrft.rewards.answers.math_answers", Limits(processor_s=0.5))
    for response in ("$9^{9^{9^9}}$", r"\boxed{(10^9)!}"):
        with pytest.raises(Unjudged, match="^comparing took more than 0.5 s of processor time$"):
            child.ask("judge", response, "7", False, what="comparing")
    assert child.ask("judge", "8 \ud800 \n \x00", "7", False, what="comparing") == 0.0
    child.close()


def test_without_the_package_the_rule_is_refused_before_the_run(monkeypatch, rollout):
    prompts = [rollout("", "1").prompt]
    assert build_rewards(["math"], {}, prompts).primary == "math"
    monkeypatch.setitem(RULES, "math", replace(RULES["math"], packages=("no_such_package_here",)))
    with pytest.raises(Refused, match=r"^--reward_fn math needs .*: pip install 'math-verify\[antlr4_13_2\]'$"):
        build_rewards(["math"], {}, prompts)


def test_judging_needs_no_sympy_in_this_process():
    code = "import sys, lightrft.rewards.combine; assert not {'sympy', 'math_verify', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
