"""How many bytes the weights, their gradients and the optimizer's state take on each process."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelStates:
    """Bytes of one process; `gathered` is the copy that the in-process engine samples from where shards are kept.

    gradients are there while a model learns; sums are what DeepSpeed adds them up in, and keeps.
    """

    weights: float
    gradients: float
    sums: float
    optimizer: float
    reference: float
    gathered: float

    @property
    def total(self) -> float:
        """Sampling and learning take turns, so gradients and the gathered copy are never there together."""
        return self.weights + self.sums + self.optimizer + self.reference + max(self.gradients, self.gathered)

    def __str__(self) -> str:
        parts = {name: value / 1e9 for name, value in vars(self).items() if value}
        return f"{self.total / 1e9:.3g} GB ({', '.join(f'{name} {value:.3g}' for name, value in parts.items())})"


def model_states(
    parameters: int,
    *,
    ranks: int,
    stage: int | None,
    half: bool,
    adam: bool,
    reference: bool,
    on_cpu: bool,
    critic: int = 0,
) -> ModelStates:
    """The states of a model, all of whose parameters are trained, and of a critic with so many parameters.

    stage: DeepSpeed ZeRO 1 to 3 (arXiv:1910.02054: optimizer, then gradients, then weights are partitioned), None for
    FSDP2, whose shards are float32. half: computed in 16 bits, over a float32 master copy that the optimizer holds
    (DeepSpeed) or the shards are (FSDP2). on_cpu: FSDP2's shards, gradients and optimizer in host memory.
    Policy and critic take turns, so their gradients are never there together.

    Gradients are added up in float32. Stage 1 in 16 bits keeps a whole model's sum beside the 16-bit gradients, stage
    3 its share of one; the 16-bit gradients of stages 2 and 3 are gone as soon as they are added.
    """
    compute = 2 if half else 4
    held = 4 if stage is None else compute
    master = 4 if half and stage is not None else 0
    kept = 0 if on_cpu else 1
    sharded = stage is None or stage == 3
    trained = parameters + critic
    keeps_sums = stage == 3 or (stage == 1 and half)
    own = 0 if stage == 3 else 2 if keeps_sums else 4 / (1 if stage == 1 else ranks)
    return ModelStates(
        weights=kept * trained * held / (ranks if sharded else 1),
        gradients=kept * max(parameters, critic) * own,
        sums=trained * 4 / (1 if stage == 1 else ranks) if keeps_sums else 0,
        optimizer=kept * trained * (master + 8 * adam) / ranks,
        reference=kept * reference * parameters * held / (ranks if stage is None else 1),
        gathered=parameters * compute if sharded and (ranks > 1 or on_cpu) else 0,
    )
