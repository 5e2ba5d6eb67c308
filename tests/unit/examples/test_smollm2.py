"""The tokenizer of examples/smollm2.py comes from the GGUF's own lists, whatever transformers makes of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from gguf import GGUFWriter
from tokenizers.pre_tokenizers import ByteLevel

sys.path.insert(0, str(Path(__file__).parents[3] / "examples"))
from smollm2 import CONTROL, make_tokenizer  # noqa: E402

sys.path.pop(0)

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
NORMAL = 1


@pytest.fixture
def gguf(tmp_path):
    letters = sorted(ByteLevel.alphabet())
    tokens = [*SPECIAL, *letters, "ab", "Ġab"]
    writer = GGUFWriter(tmp_path / "tiny.gguf", "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([CONTROL] * 3 + [NORMAL] * (len(tokens) - 3))
    writer.add_token_merges(["a b", "Ġ ab"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(1)  # wrong, as some versions read it
    writer.add_chat_template("{{ messages[0].content }}")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return tmp_path / "tiny.gguf"


def test_tokens_merges_and_special_tokens_are_the_files_own(gguf, tmp_path):
    made = make_tokenizer(gguf)
    made.save_pretrained(tmp_path / "saved")
    for tokenizer in (made, type(made).from_pretrained(tmp_path / "saved")):
        assert (tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (
            0, 1, 2, 2,
        )  # fmt: skip
        assert tokenizer.tokenize("ab ab<|im_end|>a b") == ["ab", "Ġab", "<|im_end|>", "a", "Ġ", "b"]
        assert tokenizer("é").input_ids == [3 + sorted(ByteLevel.alphabet()).index(byte) for byte in "Ã©"]
        assert tokenizer.chat_template == "{{ messages[0].content }}" and len(tokenizer) == 3 + 256 + 2
