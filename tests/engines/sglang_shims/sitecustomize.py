"""Read by Python at every start, in SGLang's environment of a machine without a GPU (environment.sh puts it there).

torchvision's usual wheel is made for CUDA. Beside a torch for CPU its library of operators cannot be loaded, and
`import torchvision` then fails at the operators that it wants to describe. They are declared here before; called,
they fail, and SGLang calls them for images alone.
"""

import importlib.abc
import sys

OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


class BeforeTorchvision(importlib.abc.MetaPathFinder):
    """Finds nothing; is asked first. torch is imported only where torchvision is wanted: it takes seconds."""

    def __init__(self):
        self.library = None

    def find_spec(self, name, path=None, target=None):
        if name == "torchvision" and self.library is None:
            import torch

            self.library = torch.library.Library("torchvision", "FRAGMENT")
            for operator in OPERATORS:
                self.library.define(operator)
        return None


sys.meta_path.insert(0, BeforeTorchvision())
