from __future__ import annotations

import pytest

from lightrft.ranks.pulse import Pulse
from lightrft.track.clock import Clock


@pytest.fixture
def pulse(monkeypatch):
    made = Pulse()
    monkeypatch.setattr("lightrft.track.clock.PULSE", made)
    return made


def test_what_is_told_of_a_process(pulse):
    assert pulse.describe() == "phase start for 0 s, no collective operation yet"
    with Clock()("generate"):
        assert pulse.describe().startswith("phase generate for 0 s, ")
        with pulse.collective("gather"):
            assert pulse.describe().endswith("last collective operation gather (has not returned for 0 s)")
        assert pulse.describe().endswith("last collective operation gather (returned)")
    assert pulse.describe().startswith("phase after generate for 0 s, ")


def test_an_operation_that_raises_has_not_returned(pulse):
    with pytest.raises(RuntimeError), Clock()("update"), pulse.collective("reduce"):
        raise RuntimeError
    assert pulse.describe().startswith("phase update for 0 s, last collective operation reduce (has not returned for")


def test_what_is_progress(pulse):
    seen = []
    with Clock()("score"):
        seen.append(pulse.beats)
        with pulse.collective("gather"):
            seen.append(pulse.beats)
        seen.append(pulse.beats)
        pulse.beat()
        seen.append(pulse.beats)
    seen.append(pulse.beats)
    assert seen == [2, 2, 3, 4, 5], "that an operation begins is none"
