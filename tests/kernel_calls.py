"""How often each kernel of PyTorch ran: `with KernelCalls() as calls: ...; calls.named("attention")`."""

from __future__ import annotations

from collections import Counter

from torch.utils._python_dispatch import TorchDispatchMode


class KernelCalls(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))

    def named(self, part: str) -> int:
        """Forward ones with this in their names."""
        return sum(count for name, count in self.counts.items() if part in name and "backward" not in name)
