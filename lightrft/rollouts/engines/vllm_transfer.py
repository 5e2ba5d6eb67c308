"""How weights reach vLLM: in its own session of new weights, or by `reload_weights` in a version without one.

Both take the trainer's tensors one at a time and lay a layer out anew as soon as all of it has come, so no more than a
layer is there twice. In a session vLLM is also told their version, and says of each response which ones it is from.
vLLM's own ways of handing over (NCCL, CUDA IPC) are for a trainer in another process. Ours is in this one: the tensors
themselves go over, as an iterator.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

WAY = "lightrft"  # the name of ours
UNTOLD = "default"  # vLLM's word for a version that it was not told


def push(llm: Any, params: Iterable[tuple[str, Tensor]], version: int) -> None:
    if not has_session():
        llm.collective_rpc("reload_weights", kwargs={"weights_iterator": params})
        return
    llm.start_weight_update()
    llm.update_weights({"update_info": {"params": params}})
    llm.finish_weight_update(weight_version=str(version))


def transfer_settings() -> dict[str, Any]:
    """Fields of vLLM's EngineArgs."""
    if not has_session():
        return {}
    _register()
    return {"weight_transfer_config": {"backend": WAY}}


@cache
def has_session() -> bool:
    """Whether it has one that is told the version of the weights."""
    from vllm import LLM  # pyright: ignore

    finish = getattr(LLM, "finish_weight_update", None)
    return finish is not None and "weight_version" in inspect.signature(finish).parameters


@dataclass
class Nothing:
    """What a session has to be told before the first one."""


@dataclass
class Chunk:
    params: Iterable[tuple[str, Tensor]]


@cache
def _register() -> None:
    from vllm.distributed.weight_transfer.base import WeightTransferEngine  # pyright: ignore
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory  # pyright: ignore
    from vllm.model_executor.model_loader import reload  # pyright: ignore

    class HandedOver(WeightTransferEngine):
        init_info_cls, update_info_cls = Nothing, Chunk

        def init_transfer_engine(self, init_info: Nothing) -> None:
            pass

        def start_weight_update(self) -> None:
            reload.initialize_layerwise_reload(self.model)

        def receive_weights(self, update_info: Chunk) -> None:
            self.model.load_weights(update_info.params)

        def finish_weight_update(self) -> None:
            reload.finalize_layerwise_reload(self.model, self.model_config)

        def shutdown(self) -> None:
            pass

    WeightTransferEngineFactory.register_engine(WAY, HandedOver)
