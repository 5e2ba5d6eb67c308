from __future__ import annotations

import torch

from lightrft.models.fingerprint import MODULUS, fingerprint


def test_it_is_the_sum_of_b_times_2b_plus_1():
    """1 = 127 x 2^23 and 2 = 2^30 in bits: 2 b b is a multiple of 2^32. In bf16 1 = 127 x 2^7, and it is 2^15 more."""
    assert fingerprint(torch.tensor([1.0])) == 0x3F800000
    assert fingerprint(torch.tensor([1.0, 2.0])) == 0x3F800000 + 0x40000000
    assert fingerprint(torch.tensor([-1.0])) == (0xBF800000 - (1 << 32)) % MODULUS
    assert fingerprint(torch.tensor([1.0, 2.0], dtype=torch.bfloat16)) == 0x3F80 + 0x8000 - (1 << 16) + 0x4000 + MODULUS
    assert fingerprint(torch.zeros(0)) == 0
    five = torch.tensor([5], dtype=torch.int32).view(torch.float32)
    assert fingerprint(five) == 5 * 11


def test_parts_add_up_and_one_element_shows():
    q, k = torch.randn(8, 4), torch.randn(2, 4)
    whole = fingerprint(torch.cat([q, k]))
    assert whole == (fingerprint(q) + fingerprint(k)) % MODULUS == fingerprint(torch.cat([k, q]).T)
    q[3, 1] = torch.nextafter(q[3, 1], torch.tensor(9.0))
    assert fingerprint(torch.cat([q, k])) != whole


def test_every_pattern_of_bits_has_a_number_of_its_own():
    patterns = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn)
    assert len({fingerprint(each) for each in patterns}) == 256


def test_two_changes_that_cancel_in_a_plain_sum_show():
    """An optimizer step in bf16 moves few weights, each to its neighbour."""
    before = torch.tensor([100, 200, 300], dtype=torch.int16).view(torch.bfloat16)
    after = torch.tensor([101, 199, 300], dtype=torch.int16).view(torch.bfloat16)
    assert fingerprint(before) != fingerprint(after)


def test_a_large_tensor_is_summed_in_parts():
    large = torch.randn(3 << 18).add_(1)
    assert fingerprint(large) == sum(map(fingerprint, large.split(1000))) % MODULUS
