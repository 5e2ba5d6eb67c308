"""What a trained model takes over from `--pretrain`: its files, and the name and dtype of each weight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lightrft.errors import Refused
from lightrft.models.source import find_file, read_settings, refusal

if TYPE_CHECKING:
    import torch

    from lightrft.args.groups.model import ModelArgs

INDEX = "model.safetensors.index.json"
TOKENIZER = (
    "tokenizer.json",
    "tokenizer.*.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tekken.json",
    "tokenizer.model",
    "tokenizer.model.*",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tiktoken.model",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/*.jinja",
)
PROCESSOR = ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json")
CONFIGURATION = ("generation_config.json", "*preprocessor_config.json", "processor_config.json")
TERMS = ("LICENSE*", "NOTICE*", "USE_POLICY*")  # a README describes another model: it stays behind
CODE = ("*.py", "*.tiktoken")  # of models that bring their own


@dataclass(frozen=True)
class Given:
    """files: contents by path in the folder. dtypes: by tensor, of the weights, as safetensors names them."""

    files: Mapping[str, bytes] = field(default_factory=dict)
    dtypes: Mapping[str, str] = field(default_factory=dict)

    def dtype(self, name: str) -> torch.dtype | None:
        """Of that tensor; of a tensor that was not given, the most frequent one. None for what cannot train."""
        import torch

        most = Counter(self.dtypes.values()).most_common(1)
        short = self.dtypes.get(name, most[0][0] if most else "")
        floats = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
        return floats.get(short)


def read_given(args: ModelArgs, processor: str | None = None) -> Given:
    """A run reads it at its start, so that later changes of the folder do not matter. processor: `--processor`, whose
    files take the place of the model's own."""
    config = find_file(args, "config.json")
    assert config is not None, "the model was loaded"
    patterns = ["config.json", *TOKENIZER, *CONFIGURATION, *TERMS]
    if any(read_settings(args, name).get("auto_map") for name in ("config.json", "tokenizer_config.json")):
        patterns += CODE
    files = dict(_files(config.parent, patterns))
    if processor is not None:
        other = (find_file(replace(args, pretrain=processor), name) for name in PROCESSOR)
        files = {name: content for name, content in files.items() if name not in PROCESSOR}
        files |= {path.name: path.read_bytes() for path in other if path is not None}
    return Given(files, dict(_dtypes(args)))


def _files(root: Path, patterns: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    for path in (path for pattern in patterns for path in sorted(root.glob(pattern))):
        if path.is_file():
            yield path.relative_to(root).as_posix(), path.read_bytes()


def weight_files(args: ModelArgs) -> list[Path]:
    """The safetensors of the model, one file or several; [] where it has none."""
    whole = find_file(args, "model.safetensors")  # the library takes it first, whatever an index says
    return [whole] if whole else [path for name in weight_names(args) if (path := find_file(args, name))]


def weight_names(args: ModelArgs) -> list[str]:
    """Names of the files that the index lists; [] without an index. Raises `Refused` for an index that lists none."""
    if find_file(args, INDEX) is None:
        return []
    places = read_settings(args, INDEX).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise Refused(f"--pretrain {args.pretrain}: its {INDEX} has no weight_map; give a whole model folder")
    return sorted(set(places.values()))


def dtype_to_train(args: ModelArgs, compute: torch.dtype) -> torch.dtype:
    """`compute` where all weights were given in it, else float32: nothing finer than `compute` is lost then."""
    import torch

    given = Given(dtypes=dict(_dtypes(args)))
    return compute if {given.dtype(name) for name in given.dtypes} == {compute} else torch.float32


def _dtypes(args: ModelArgs) -> Iterator[tuple[str, str]]:
    from safetensors import SafetensorError, safe_open

    for path in weight_files(args):
        try:
            with safe_open(path, "pt") as weights:
                yield from ((name, weights.get_slice(name).get_dtype()) for name in weights.keys())  # noqa: SIM118
        except SafetensorError as error:
            raise refusal(args, "model", error) from error
