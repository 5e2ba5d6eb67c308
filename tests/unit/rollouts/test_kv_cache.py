"""The cache of keys and values that has room for tokens to come."""

from __future__ import annotations

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from lightrft.rollouts.engines.kv_cache import RoomyLayer, make_cache


def test_a_roomy_layer_holds_what_a_growing_one_holds():
    generator = torch.Generator().manual_seed(0)

    def states(batch, length):
        return [torch.randn(batch, 2, length, 3, generator=generator) for _ in range(2)]

    ours, theirs = RoomyLayer(room=6), DynamicLayer()
    for rows, kept in (((2, 4), [0, 0, 1, 1, 1]), ((5, 1), [0, 2, 4]), ((3, 1), [2, 1]), ((2, 1), [0, 1])):
        new = states(*rows)
        for found, wanted in zip(ours.update(*new), theirs.update(*new), strict=True):
            assert torch.equal(found, wanted)
        assert ours.get_seq_length() == theirs.get_seq_length()
        for layer in (ours, theirs):
            layer.reorder_cache(torch.tensor(kept))
    assert torch.equal(ours.keys, theirs.keys) and torch.equal(ours.values, theirs.values)
    plain, prompt, token = RoomyLayer(room=1), states(2, 4), states(2, 1)
    plain.update(*prompt)
    for found, *parts in zip(plain.update(*token), prompt, token, strict=True):
        assert torch.equal(found, torch.cat(parts, dim=2))


def test_layers_of_other_kinds_stay_as_the_library_makes_them(causal_model):
    config = causal_model("gemma3").config
    ours, theirs = make_cache(config, room=4), DynamicCache(config=config)
    assert [type(layer) for layer in ours.layers] == [type(theirs.layers[0]), RoomyLayer]
