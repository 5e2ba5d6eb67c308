"""Every test runs offline on one thread, so that numbers do not depend on the machine's load."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import resource  # noqa: E402
import sys  # noqa: E402
from contextlib import contextmanager  # noqa: E402
from pathlib import Path  # noqa: E402

import pytest  # noqa: E402

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(autouse=True)
def _one_thread():
    """Sets one thread where the test has imported torch; argument tests import none."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture
def full_disk():
    """`with full_disk(limit):` the kernel lets no file grow beyond `limit` bytes, as if the disk were full there."""

    @contextmanager
    def limited(limit):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """A folder with model/ (Qwen2, 0.4 M parameters, warmed up a little), train.jsonl and eval.jsonl."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        import tiny_addition
    finally:
        sys.path.remove(str(EXAMPLES))
    import torch

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("tiny")
    tokenizer, model = tiny_addition.make_tokenizer(), tiny_addition.make_model(seed=0)
    tiny_addition.warm_start(model, tokenizer, steps=40, seed=0)
    tiny_addition.write_data(folder)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder
