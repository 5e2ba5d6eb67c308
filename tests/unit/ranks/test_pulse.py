from __future__ import annotations

import pytest

from lightrft import digest
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


def test_an_older_operation_is_not_taken_for_the_last_of_a_part(pulse):
    """Within it sharded models send each other what is not told."""
    with Clock()("update"):
        with pulse.collective("gather"):
            pass
        pulse.part("policy, micro-batch 1 of 2")
        told = pulse.describe()
    assert told.startswith("phase update (policy, micro-batch 1 of 2) for 0 s, ")
    assert told.endswith("last collective operation gather (returned before that)")
    assert pulse.describe().startswith("phase after update for ")


def test_each_piece_of_a_file_that_is_read_is_progress(pulse, monkeypatch, tmp_path):
    monkeypatch.setattr(digest, "PULSE", pulse)
    (tmp_path / "weights").write_bytes(bytes(2 * digest.PIECE + 1))
    before = pulse.beats
    digest.sha256_of(tmp_path / "weights")
    assert pulse.beats == before + 3


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
