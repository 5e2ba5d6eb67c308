"""Ranges that ranks have written are one whole again, read in any cut; where they are not, the tensor is named."""

from __future__ import annotations

import pytest
import torch

from lightrft.errors import Damaged
from lightrft.strategy.held import Held, fill, own_pieces
from lightrft.strategy.state import WEIGHT, ModelState, Piece, StateReader, write_model_state

WHOLE = torch.arange(12.0).view(3, 4)


def piece(start, end, *, kind=WEIGHT, name="a.weight"):
    return Piece(kind, name, (3, 4), start, WHOLE.flatten()[start:end].clone())


def write(folder, *ranks, steps=(), numbers=()):
    """The pieces of each rank."""
    for rank, pieces in enumerate(ranks):
        write_model_state(ModelState(pieces, dict(steps), dict(numbers)), folder, rank)
    return folder


def test_any_range_is_read_from_the_ranges_that_were_written(tmp_path):
    reader = StateReader(write(tmp_path, [piece(7, 12)], [piece(0, 2), piece(2, 3)], [piece(3, 7)]))
    assert reader.shapes == {"a.weight": (3, 4)}
    for start in range(12):
        for end in range(start + 1, 13):
            assert torch.equal(reader.read(WEIGHT, "a.weight", start, end - start), WHOLE.flatten()[start:end])


def test_everything_comes_back_as_it_was(tmp_path):
    """Dtypes, tensors without a dimension, names with any characters, and numbers to the last bit."""
    odd = {
        "x/y@3": torch.tensor([1, -2]),
        "scalar": torch.tensor(0.1),
        "half": torch.tensor([0.1], dtype=torch.bfloat16),
    }
    pieces = [Piece(WEIGHT, name, tuple(value.shape), 0, value.view(-1)) for name, value in odd.items()]
    folder = write(tmp_path, pieces, [piece(0, 12)], steps={"half": 3}, numbers={"optimizer_steps": 7, "scale": 0.1})
    reader = StateReader(folder)
    for name, value in odd.items():
        found = reader.read(WEIGHT, name, 0, value.numel())
        assert found.dtype == value.dtype and torch.equal(found.view(value.shape), value)
    assert reader.steps == {"half": 3} and reader.numbers == {"optimizer_steps": 7, "scale": 0.1}


@pytest.mark.parametrize(
    "ranks, reason",
    [
        ([[piece(0, 5)], [piece(6, 12)]], "the weight of a.weight is missing from element 5 on"),
        ([[piece(3, 12)]], "the weight of a.weight is missing from element 0 on"),
        ([[piece(0, 5)], []], "the weight of a.weight is missing from element 5 on"),
        ([[piece(0, 5)], [piece(4, 12)]], "the weight of a.weight is there twice from element 5 on"),
        ([[piece(0, 12)], [piece(0, 12)]], "the weight of a.weight is there twice from element 12 on"),
        (
            [[piece(0, 12)], [piece(0, 5, kind="exp_avg")]],
            "the exp_avg of a.weight is missing from element 5 on",
        ),
    ],
)
def test_what_is_not_whole_is_named(tmp_path, ranks, reason):
    with pytest.raises(Damaged, match=f"{tmp_path.name}: {reason}"):
        StateReader(write(tmp_path, *ranks))


def test_what_was_never_written_is_named_when_it_is_asked_for(tmp_path):
    with pytest.raises(Damaged, match="has no exp_avg of a.weight"):
        StateReader(write(tmp_path, [piece(0, 12)])).read("exp_avg", "a.weight", 0, 12)


def test_a_folder_without_files_of_ranks_is_named(tmp_path):
    (tmp_path / "rank_0.safetensors.tmp").touch()
    with pytest.raises(Damaged, match="has no file of any rank"):
        StateReader(tmp_path)


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: b"x" * len(content), lambda _: b""])
def test_a_broken_file_is_named(tmp_path, damage):
    broken = write(tmp_path, [piece(0, 7)], [piece(7, 12)]) / "rank_00001.safetensors"
    broken.write_bytes(damage(broken.read_bytes()))
    with pytest.raises(Damaged, match=r"rank_00001\.safetensors is broken: "):
        StateReader(tmp_path)


@pytest.mark.parametrize("copies", (1, 2, 3, 5, 20))
def test_of_what_several_hold_alike_each_writes_a_share(tmp_path, copies):
    held = [Held(WEIGHT, "a.weight", (3, 4), 0, WHOLE.flatten(), copy, copies) for copy in range(copies)]
    written = [own_pieces([each]) for each in held]
    sizes = [sum(len(piece.values) for piece in pieces) for pieces in written]
    assert sum(sizes) == 12 and max(sizes) - min(sizes) <= 1
    assert torch.equal(StateReader(write(tmp_path, *written)).read(WEIGHT, "a.weight", 0, 12), WHOLE.flatten())


def test_later_steps_do_not_change_what_was_taken():
    live = torch.zeros(4)
    (taken,) = own_pieces([Held(WEIGHT, "b", (4,), 0, live)])
    live += 1
    assert taken.values.tolist() == [0, 0, 0, 0]


def test_loading_fills_ranges_and_forgets_what_was_never_updated(tmp_path):
    """In the precision in which each is held."""
    reader = StateReader(write(tmp_path, [piece(0, 12), piece(0, 12, kind="exp_avg")], steps={"a.weight": 2}))
    rounded, moment, other = torch.ones(5, dtype=torch.bfloat16), torch.ones(3), torch.ones(2)
    fill(
        [
            Held(WEIGHT, "a.weight", (3, 4), 2, rounded),
            Held("exp_avg", "a.weight", (3, 4), 9, moment),
            Held("exp_avg", "b", (2,), 0, other),
            Held(WEIGHT, "a.weight", (3, 4), 12, torch.ones(0)),
        ],
        reader,
    )
    assert rounded.tolist() == [2, 3, 4, 5, 6] and moment.tolist() == [9, 10, 11] and other.tolist() == [0, 0]
