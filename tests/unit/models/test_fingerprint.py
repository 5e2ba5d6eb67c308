from __future__ import annotations

import torch

from lightrft.models.fingerprint import MODULUS, fingerprint


def test_it_is_the_sum_of_the_bits():
    assert fingerprint(torch.tensor([1.0])) == 0x3F800000
    assert fingerprint(torch.tensor([1.0, 2.0])) == 0x3F800000 + 0x40000000
    assert fingerprint(torch.tensor([-1.0])) == (0xBF800000 - (1 << 32)) % MODULUS
    assert fingerprint(torch.tensor([1.0, 2.0], dtype=torch.bfloat16)) == 0x3F80 + 0x4000
    assert fingerprint(torch.zeros(0)) == 0


def test_parts_add_up_and_one_element_shows():
    q, k = torch.randn(8, 4), torch.randn(2, 4)
    whole = fingerprint(torch.cat([q, k]))
    assert whole == (fingerprint(q) + fingerprint(k)) % MODULUS == fingerprint(torch.cat([k, q]).T)
    q[3, 1] = torch.nextafter(q[3, 1], torch.tensor(9.0))
    assert fingerprint(torch.cat([q, k])) != whole
