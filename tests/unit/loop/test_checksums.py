from __future__ import annotations

import pytest

from lightrft.errors import Damaged
from lightrft.loop.checksums import check_files, files_below, share, sums_of

# printf abc | sha256sum
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_sums_are_those_of_sha256sum(tmp_path):
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "weights").write_text("abc")
    found = sums_of(tmp_path, files_below(tmp_path))
    assert found == {"policy/weights": {"bytes": 3, "sha256": ABC}}
    check_files(tmp_path, found)
    (tmp_path / "policy" / "weights").write_text("abd")
    with pytest.raises(Damaged, match="policy/weights is not as it was written"):
        check_files(tmp_path, found)


def test_a_short_file_is_named_before_any_is_read(tmp_path):
    sums = {"a": {"bytes": 1, "sha256": "x"}, "b": {"bytes": 2, "sha256": "x"}}
    for name in sums:
        (tmp_path / name).write_text("a")
    with pytest.raises(Damaged, match="b has 1 bytes of 2"):
        check_files(tmp_path, sums)


def test_each_file_has_one_rank_that_checks_it_and_the_bytes_are_shared():
    sums = {name: {"bytes": size, "sha256": ""} for name, size in zip("abcdef", (7, 5, 4, 4, 0, 0), strict=True)}
    shares = [share(sums, rank, 3) for rank in range(3)]
    # 7 to the first, 5 to the second, 4 and 4 to the third, which had fewest; then the second has
    assert [sorted(each) for each in shares] == [["a"], ["b", "e", "f"], ["c", "d"]]
