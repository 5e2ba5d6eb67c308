"""The tokenizer of `--pretrain` as its maker wrote it.

`AutoTokenizer` may build the usual tokenizer of the model's type, with another pre-tokenizer and other special tokens,
and take only the vocabulary from tokenizer.json; or it invents an empty one. Here the file counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightrft.errors import Refused
from lightrft.models.source import check_place, code_options, find_file, hub_options, place, read_settings, refusal

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lightrft.args.groups.model import ModelArgs

FOR_ALL = ("tokenizer.model", "tekken.json", "tiktoken.model")  # vocabularies that transformers reads for any type
VOCABULARIES = (*FOR_ALL, "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model")
PROBES = (  # what tokenizers differ in
    "What is 2023 + 650841823? It's 650,843,846.00; DON'T 3+5=8",
    " leading, trailing  two   three \t tab \r\n\r\n\n\n lines \u00a0 end ",
    "caf\u00e9 cafe\u0301 \u00c5ngstr\u00f6m \u2460 \ufb01 stra\u00dfe \u0130stanbul",
    "\u4f60\u597d\u4e16\u754c\u3002 \u0645\u0631\u062d\u0628\u0627 \u0928\u092e\u0938\u094d\u0924\u0947 \ud55c\uad6d",
    "def f(x_1, *, y=0.5): return {'a': [x_1**2, -y]} # \U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467 \u2581",
)


def load_tokenizer(args: ModelArgs) -> PreTrainedTokenizerBase:
    """Gives the ids of tokenizer.json where `--pretrain` has one; special tokens and templates are its configuration's.

    With --trust_remote_code it is the class that comes with the model. Raises `Refused`, also where there is none.
    """
    from transformers import AutoTokenizer

    check_place(args)
    if args.disable_fast_tokenizer:
        raise Refused(
            "--disable_fast_tokenizer can do nothing: transformers 5 has no second implementation of a tokenizer; "
            "remove it"
        )
    try:
        if args.trust_remote_code and _has_code(args):
            return AutoTokenizer.from_pretrained(place(args), **code_options(args))
        return _from_tokenizer_json(args) or _from_older_files(args)
    except Refused:
        raise
    except Exception as error:  # tokenizers raises no kind of its own
        raise refusal(args, "tokenizer", error) from error


def _has_code(args: ModelArgs) -> bool:
    return bool(read_settings(args, "tokenizer_config.json").get("auto_map"))


def _from_tokenizer_json(args: ModelArgs) -> PreTrainedTokenizerBase | None:
    from transformers import PreTrainedTokenizerFast

    file = find_file(args, "tokenizer.json")
    if file is None:
        return None
    tokenizer = PreTrainedTokenizerFast.from_pretrained(place(args), **hub_options(args))  # reads the file itself
    _check_ids(args, tokenizer, file)
    return tokenizer


def _check_ids(args: ModelArgs, tokenizer: Any, file: Path) -> None:
    """Refuses where the library gives other ids than the file alone does."""
    from tokenizers import Tokenizer

    shipped: Any = Tokenizer.from_file(str(file))
    shipped.no_truncation()
    shipped.no_padding()
    shipped.encode_special_tokens = tokenizer.split_special_tokens
    added = shipped.get_added_tokens_decoder().values()
    for text in (*PROBES, "".join(f"a {token.content} b{token.content}" for token in added)):
        if tokenizer(text)["input_ids"] != shipped.encode(text).ids:
            raise Refused(
                f"--pretrain {args.pretrain}: transformers and its tokenizer.json give different ids for "
                f"{text[:40]!r}; make tokenizer_config.json agree with tokenizer.json"
            )


def _from_older_files(args: ModelArgs) -> PreTrainedTokenizerBase:
    """From a vocabulary in another format, read by the class that the configuration or the model's type names."""
    from transformers import AutoTokenizer

    code = _has_code(args)
    if not code:
        _check_files(args, VOCABULARIES)
    tokenizer = AutoTokenizer.from_pretrained(place(args), **code_options(args))
    if not code:  # without a vocabulary a class invents one of a few tokens
        _check_files(args, (*FOR_ALL, *type(tokenizer).vocab_files_names.values()))
    return tokenizer


def _check_files(args: ModelArgs, names: Iterable[str]) -> None:
    if not any(find_file(args, name) for name in names):
        raise Refused(
            f"--pretrain {args.pretrain}: it has no tokenizer; copy tokenizer.json and tokenizer_config.json of the "
            "model that it was made from into it"
        )
    if find_file(args, "vocab.json") and not find_file(args, "merges.txt"):
        raise Refused(f"--pretrain {args.pretrain}: its tokenizer has vocab.json and no merges.txt; add that file")
