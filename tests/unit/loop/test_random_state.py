from __future__ import annotations

import random

import numpy as np
import torch

from lightrft.loop.random_state import random_state, read_random_state, set_random_state, write_random_state


def draws():
    return random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(3).tolist()


def test_random_states_go_through_a_file_and_give_the_same_numbers(tmp_path):
    draws()  # the odd Gaussians of both generators are cached now
    write_random_state(tmp_path, 3, random_state())
    wanted = [draws() for _ in range(3)]
    set_random_state(read_random_state(tmp_path, 3))
    assert [draws() for _ in range(3)] == wanted


def test_a_rank_that_was_not_there_has_none(tmp_path):
    write_random_state(tmp_path, 0, random_state())
    assert read_random_state(tmp_path, 0) and read_random_state(tmp_path, 1) is None
