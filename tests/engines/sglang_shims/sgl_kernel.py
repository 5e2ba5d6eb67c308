"""Stands where SGLang's compiled kernels would: they are built for CUDA, and its CPU path has some of its own.

Every name of it can be imported; called, it raises NotImplementedError. Plain generation in float32 calls none.
"""

__version__ = "0"
__path__: list[str] = []


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)

    def absent(*args, **kwargs):
        raise NotImplementedError(f"sgl_kernel.{name} is not there: this is the placeholder for machines without a GPU")

    absent.__name__ = name
    return absent
