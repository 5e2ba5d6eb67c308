"""No golden case is left out in silence."""

from __future__ import annotations

import test_golden_advantages
import test_golden_logits
import test_golden_losses
import test_golden_terms
from golden import GOLDEN, TESTED

TAKEN_BY = (test_golden_advantages, test_golden_logits, test_golden_losses, test_golden_terms)


def test_every_case_has_its_test():
    assert {case["name"] for case in GOLDEN["cases"]} == TESTED and len(TESTED) == 75
