from __future__ import annotations

import hashlib

import numpy as np
import pytest

from lightrft.rollouts.engines.noise import response_seed, uniforms

WORD = (1 << 64) - 1


def philox4x64(counter, key):
    """Ten rounds of Philox 4x64 (Salmon et al. 2011), written from the paper."""
    x, k = list(counter), list(key)
    for _ in range(10):
        low, high = x[0] * 0xD2E7470EE14C6C93, x[2] * 0xCA5A826395121157
        x = [(high >> 64) ^ x[1] ^ k[0], high & WORD, (low >> 64) ^ x[3] ^ k[1], low & WORD]
        k = [(k[0] + 0x9E3779B97F4A7C15) & WORD, (k[1] + 0xBB67AE8584CAA73B) & WORD]
    return x


def test_the_reference_gives_the_known_answers_of_random123():
    assert philox4x64([0] * 4, [0] * 2) == [
        0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B,
    ]  # fmt: skip
    assert philox4x64([WORD] * 4, [WORD] * 2) == [
        0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0,
    ]  # fmt: skip


@pytest.mark.parametrize("seed", [0, 1, 12345, WORD])
def test_the_stream_is_philox_with_the_seed_as_key_and_the_token_as_counter(seed):
    words = [word for block in (1, 2, 3) for word in philox4x64([block, 0, 0, 0], [seed, 0])]
    assert uniforms([seed], 12)[0].tolist() == [(word >> 11) / 2**53 for word in words]  # 53 bits: exact


def test_a_stream_depends_on_neither_its_length_nor_its_batch():
    wide = uniforms([5, 6, 7], 33)
    for length in (1, 2, 5, 32):
        assert np.array_equal(uniforms([7, 5], length), wide[[2, 0], :length])


def test_numbers_are_float64_in_the_half_open_unit_interval():
    found = uniforms(range(100), 1000)
    assert found.shape == (100, 1000) and found.dtype == np.float64
    assert found.min() >= 0.0 and found.max() < 1.0


@pytest.mark.parametrize("seeds, length", [([3], 20000), ([response_seed(1, 0, 0, "p", i) for i in range(20000)], 1)])
def test_numbers_are_uniform_along_a_stream_and_across_seeds(seeds, length):
    found = np.sort(uniforms(seeds, length).ravel())
    steps = np.arange(len(found) + 1) / len(found)
    distance = max((steps[1:] - found).max(), (found - steps[:-1]).max())
    assert distance < 1.63 / len(found) ** 0.5  # Kolmogorov-Smirnov at 1 %; the seeds are fixed


def test_a_seed_is_the_head_of_a_hash_of_everything_that_names_the_response():
    digest = hashlib.sha256(b"42/7/19/math:3/2").digest()
    assert response_seed(42, 7, 19, "math:3", 2) == int.from_bytes(digest[:8], "big")
    named = {response_seed(*name) for name in [(1, 0, 0, "p", 0), (0, 1, 0, "p", 0), (0, 0, 1, "p", 0)]}
    assert len(named | {response_seed(0, 0, 0, "q", 0), response_seed(0, 0, 0, "p", 1)}) == 5
