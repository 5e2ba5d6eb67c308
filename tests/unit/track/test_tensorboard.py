from __future__ import annotations

import math

from lightrft.track.base import Loggers
from lightrft.track.tensorboard import TensorBoard


def read(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def scalars(folder):
    found = read(folder)
    return {name: [(e.step, e.value) for e in found.Scalars(name)] for name in found.Tags()["scalars"]}


def test_it_reads_back_what_was_logged_at_once(tmp_path):
    board = TensorBoard(tmp_path, 0, {"seed": 1})
    board.evaluated({"eval/accuracy": 0.5})
    for step in (1, 2, 3):
        board.metrics({"reward/mean": step / 4, "policy/lr": 0.5}, step)
        assert scalars(tmp_path)["reward/mean"][-1] == (step, step / 4)  # before it is closed
    board.close()
    assert scalars(tmp_path) == {
        "eval/accuracy": [(0, 0.5)],
        "reward/mean": [(1, 0.25), (2, 0.5), (3, 0.75)],
        "policy/lr": [(1, 0.5), (2, 0.5), (3, 0.5)],
    }


def test_what_is_no_number_stays_none(tmp_path):
    board = TensorBoard(tmp_path, 0, {})
    board.metrics({"a": math.nan, "b": math.inf}, 1)
    board.close()
    found = scalars(tmp_path)
    assert math.isnan(found["a"][0][1]) and found["b"] == [(1, math.inf)]


def test_the_points_beyond_the_resumed_step_are_hidden(tmp_path):
    for resumed, steps in ((0, (1, 2, 3)), (1, (2,))):
        board = TensorBoard(tmp_path, resumed, {})
        for step in steps:
            board.metrics({"reward/mean": float(10 * resumed + step)}, step)
        board.close()
    assert scalars(tmp_path) == {"reward/mean": [(1, 1.0), (2, 12.0)]}


def test_lengths_are_a_histogram_and_arguments_a_table(tmp_path, make_rollout):
    board = TensorBoard(tmp_path, 0, {"seed": 1, "top_p": 0.9})
    board.rollouts([make_rollout([1], [5] * n, total=1.0) for n in (1, 4, 4, 4)], [], 7)
    board.close()
    found = read(tmp_path)
    (entry,) = found.Histograms("rollout/length")
    lengths = entry.histogram_value
    assert (entry.step, lengths.num, lengths.min, lengths.max, lengths.sum) == (7, 4, 1, 4, 13)
    counts = {limit: count for limit, count in zip(lengths.bucket_limit, lengths.bucket, strict=True) if count}
    assert list(counts.values()) == [1, 3] and max(counts) >= 4
    (text,) = found.Tensors("arguments/text_summary")
    table = text.tensor_proto.string_val[0].decode()
    assert table == "| flag | value |\n|---|---|\n| seed | 1 |\n| top_p | 0.9 |"


def test_samples_are_texts_with_their_images(tmp_path, shown_samples):
    board = TensorBoard(tmp_path, 0, {})
    board.rollouts([sample.rollout for sample in shown_samples], shown_samples, 3)
    board.close()
    found = read(tmp_path)
    texts = [
        found.Tensors(f"samples/{number}/text_summary")[0].tensor_proto.string_val[0].decode() for number in (1, 2, 3)
    ]
    assert texts[1] == (
        "**prompt**\n\n    user: <image><image>How *many*?\n\n**response**\n\n    4\n    <b>\n\n**reward** 0 (exact 0)"
    )
    assert "    # 3\n" in texts[0] and texts[2].endswith("**reward** nan")
    assert sorted(found.Tags()["images"]) == [f"samples/{n}/image_{place}" for n in (1, 2) for place in (1, 2)]
    (image,) = found.Images("samples/1/image_1")
    assert (image.step, image.width, image.height) == (3, 8, 6)
    assert image.encoded_image_string == shown_samples[0].pictures[0]


def test_a_full_disk_is_reported_once_in_one_line(tmp_path, full_disk, warnings):
    loggers = Loggers()
    loggers.add(TensorBoard, tmp_path, 0, {})
    loggers.metrics({"reward/mean": 0.25}, 1)
    (file,) = tmp_path.iterdir()
    with full_disk(file.stat().st_size + 20):
        loggers.metrics({"reward/mean": 0.5}, 2)
        (line,) = warnings()
        assert line.startswith("warning: TensorBoard failed and is off from now on (OSError: ")
        loggers.metrics({"reward/mean": 0.75}, 3)
        loggers.close()
    assert not warnings()
    assert scalars(tmp_path) == {"reward/mean": [(1, 0.25)]}


def test_a_folder_that_is_none_is_reported(tmp_path, warnings):
    (tmp_path / "file").write_text("")
    loggers = Loggers()
    loggers.add(TensorBoard, tmp_path / "file" / "tb", 0, {})
    loggers.metrics({"reward/mean": 0.25}, 1)
    loggers.close()
    (line,) = warnings()
    assert line.startswith("warning: TensorBoard failed and is off from now on (NotADirectoryError: ")
