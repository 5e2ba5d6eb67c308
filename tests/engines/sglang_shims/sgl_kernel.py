"""Stands where SGLang's compiled kernels would: they are built for CUDA, and its CPU path has some of its own.

Every name of it can be imported; called, it raises NotImplementedError. Generation in float32 calls none.
Operators that SGLang looks for when it imports its models are declared; called, they fail.
"""

import torch

__version__ = "0"
__path__: list[str] = []

OPERATORS = (
    "fused_sigmoid_mul_cpu",
    "fused_qk_gemma_rmsnorm_cpu",
    "fused_qk_gemma_rmsnorm_with_gate_cpu",
    "fused_qkvzba_split_reshape_cat_contiguous_cpu",
)
declared = torch.library.Library("sgl_kernel", "FRAGMENT")
for operator in OPERATORS:
    declared.define(f"{operator}(Tensor x) -> Tensor")


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)

    def absent(*args, **kwargs):
        raise NotImplementedError(f"sgl_kernel.{name} is not there: this is the placeholder for machines without a GPU")

    absent.__name__ = name
    return absent
