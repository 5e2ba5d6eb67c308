"""Engines with weights of their own, and with faults: each is the real local engine, which samples from a copy."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from runs import ROOT
from torch import nn
from transformers import AutoModelForCausalLM, Qwen2ForCausalLM

from lightrft.models.fingerprint import fingerprint
from lightrft.rollouts.engines.local import LocalEngine
from lightrft.rollouts.engines.sampling import keep
from lightrft.types import Request

LAYER, HEAD = "model.layers.1.mlp.up_proj.weight", "lm_head.weight"


def write_merging(folder: Path) -> None:
    """A random model whose tokenizer reads two digits 1 as one token, which the model may also write as two."""
    sys.path.insert(0, str(ROOT / "examples"))
    import tiny_addition

    tokenizer = tiny_addition.make_tokenizer()
    tokenizer.add_tokens(["11", "22", "33", "44", "55", "66", "77", "88", "99", "00"])
    config = tiny_addition.make_model(seed=0).config
    config.vocab_size = len(tokenizer)
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


class Own(LocalEngine):
    """Reads `--pretrain tiny` as engines do, and then takes what it is sent. A fault begins with version 1."""

    holds, reads = torch.float32, "tiny"

    def __init__(self, borrow, tokenizer, end_ids, **settings):
        self.model = AutoModelForCausalLM.from_pretrained(self.reads, dtype=self.holds).eval()
        super().__init__(lambda: nullcontext(self.model), tokenizer, end_ids)
        self.shares_weights = False

    @property
    def tensors(self):
        return dict(self.model.named_parameters(remove_duplicate=False))

    @property
    def at_fault(self):
        return self.version >= 1

    def update_weights(self, params, version):
        self.version, own = version, self.tensors
        for name, value in params:
            if self.takes(name):
                own[name].data.copy_(value)

    def takes(self, name):
        return True

    def fingerprints(self):
        return {(name,): fingerprint(value) for name, value in self.tensors.items()}


class StaleTensor(Own):
    def takes(self, name):
        return not (self.at_fault and name == LAYER)


class StaleHead(Own):
    def __init__(self, *parts, **more):
        super().__init__(*parts, **more)
        self.model.lm_head.weight = nn.Parameter(self.model.lm_head.weight.detach().clone())

    def takes(self, name):
        return not (self.at_fault and name == HEAD)


class ReadsItsFiles(Own):
    def update_weights(self, params, version):
        super().update_weights(params, version)
        if self.at_fault:
            self.model.load_state_dict(AutoModelForCausalLM.from_pretrained("tiny").state_dict())


class Lukewarm(Own):
    """Samples at three quarters of the temperature."""

    def generate(self, requests, sampling, *, at_once, enough=None):
        share = 0.75 if self.at_fault else 1.0
        return super().generate(
            requests, replace(sampling, temperature=share * sampling.temperature), at_once=at_once, enough=enough
        )


class Untempered(Own):
    """Samples as it should, and reports log-probabilities of temperature 1."""

    def generate(self, requests, sampling, *, at_once, enough=None):
        made = super().generate(requests, sampling, at_once=at_once, enough=enough)
        return [[self.told(each, sampling) if self.at_fault else each for each in group] for group in made]

    def told(self, generation, sampling):
        asked = replace(sampling, temperature=1.0, top_p=1.0)
        return replace(generation, logprobs=tuple(self.scored(generation, asked)))

    @torch.no_grad()
    def scored(self, generation, sampling):
        ids, start = (*generation.prompt_ids, *generation.response_ids), len(generation.prompt_ids)
        logits = self.model(input_ids=torch.tensor([ids])).logits[0, start - 1 : -1].float()
        p = (logits / sampling.temperature).softmax(-1)
        p = p / keep(p, p.sum(-1), sampling).sum(-1, keepdim=True)
        return p.gather(1, torch.tensor(generation.response_ids)[:, None])[:, 0].log().tolist()


class Filtered(Untempered):
    """Reports log-probabilities of what the filters leave."""

    def told(self, generation, sampling):
        return replace(generation, logprobs=tuple(self.scored(generation, sampling)))


class OpensPrompts(Own):
    """Reads one more token in front of each prompt, and tells so, or not."""

    tells = True

    def generate(self, requests, sampling, *, at_once, enough=None):
        if not self.at_fault:
            return super().generate(requests, sampling, at_once=at_once, enough=enough)
        opened = [Request((self.tokenizer.bos_token_id, *request.prompt_ids), request.seeds) for request in requests]
        made = super().generate(opened, sampling, at_once=at_once, enough=enough)
        return made if self.tells else [
            [replace(each, prompt_ids=request.prompt_ids) for each in group]
            for request, group in zip(requests, made, strict=True)
        ]  # fmt: skip


class OpensPromptsInSecret(OpensPrompts):
    tells = False


class EncodesResponses(Untempered):
    """Gives the ids of its responses' texts, in which two digits may be one token, with the sampled tokens' numbers."""

    reads = "merging"

    def told(self, generation, sampling):
        ids = self.tokenizer.encode(self.tokenizer.decode(generation.response_ids))
        return replace(generation, response_ids=tuple(ids), logprobs=generation.logprobs[: len(ids)])


class HalfPrecision(Own):
    """Holds and computes in bf16 what it was sent in fp32."""

    holds = torch.bfloat16


class HalfPrecisionInSecret(HalfPrecision):
    def fingerprints(self):
        return None


class StaleInSecret(StaleTensor):
    def takes(self, name):
        return not self.at_fault

    def fingerprints(self):
        return None
