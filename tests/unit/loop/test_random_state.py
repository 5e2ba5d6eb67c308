from __future__ import annotations

import random

import numpy as np
import torch

from lightrft.loop.random_state import random_state, set_random_state


def draws():
    return random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(3).tolist()


def test_random_states_go_through_a_file_and_give_the_same_numbers(tmp_path):
    draws()  # the odd Gaussians of both generators are cached now
    torch.save(random_state(), tmp_path / "random.pt")
    wanted = [draws() for _ in range(3)]
    set_random_state(torch.load(tmp_path / "random.pt", weights_only=True))
    assert [draws() for _ in range(3)] == wanted
