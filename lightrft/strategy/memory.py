"""How many bytes the weights, their gradients and the optimizer's state take on each process, and where."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """Over how many processes each part of the state is spread, and which lie in host memory.

    stage: DeepSpeed ZeRO 1 to 3 (arXiv:1910.02054: optimizer, then gradients, then weights are partitioned), None for
    FSDP2, whose shards are float32, or with masters_apart 16 bits under masters that the optimizer holds. shard_size:
    of FSDP2, processes that share one copy. zpg: of stage 3, processes that share a second copy, 1 = there is none.
    ref_size: processes that share one copy of the reference. once_a_step: FSDP2's processes hold whole weights and
    gradients while they learn.
    """

    ranks: int
    stage: int | None
    shard_size: int
    zpg: int
    ref_size: int
    states_on_cpu: bool  # FSDP2's shards, gradients and optimizer
    adam_on_cpu: bool
    ref_on_cpu: bool
    masters_apart: bool = False
    once_a_step: bool = False

    @property
    def shards_weights(self) -> bool:
        return self.stage is None or self.stage == 3

    @property
    def parts(self) -> int:
        """Processes over which weights are spread, where they are, and the optimizer's state."""
        return self.ranks if self.stage is not None else self.shard_size


@dataclass(frozen=True)
class ModelStates:
    """Bytes of one process; `gathered` is the copy that the in-process engine samples from where shards are kept.

    FSDP2 makes it of one process's shards too. gradients are there while a model learns; sums are what DeepSpeed adds
    them up in, and keeps. whole: weights and gradients beside the shards, while a model learns. host: of all of it,
    what lies in host memory, and in no other number here.
    """

    weights: float
    gradients: float
    sums: float
    optimizer: float
    reference: float
    gathered: float
    average: float = 0
    in_4_bits: float = 0
    whole: float = 0
    host: float = 0

    @property
    def total(self) -> float:
        """On the device. Sampling and learning take turns, so gradients and the gathered copy are never there
        together."""
        always = self.weights + self.in_4_bits + self.sums + self.optimizer + self.reference + self.average
        return always + max(self.gradients + self.whole, self.gathered)

    def __str__(self) -> str:
        parts = {name.replace("_", " "): value / 1e9 for name, value in vars(self).items() if value and name != "host"}
        return f"{self.total / 1e9:.3g} GB ({', '.join(f'{name} {value:.3g}' for name, value in parts.items())})"


def model_states(
    parameters: int,
    layout: Layout,
    *,
    half: bool,
    adam: bool,
    reference: bool,
    frozen: int = 0,
    critic: int = 0,
    average: bool = False,
    in_4_bits: int = 0,
) -> ModelStates:
    """The states of a model, and of a critic with so many parameters, all of which are trained.

    half: computed in 16 bits, over a float32 master that the optimizer holds (DeepSpeed) or the shards are (FSDP2).
    frozen: of the model's parameters those that are not trained, and have weights alone. average: one of the others in
    float32, which lies and is cut as the masters are. in_4_bits: bytes of further ones, which every process has whole
    on its device. Policy and critic take turns, so their gradients are never there together.

    Gradients are added up in float32. Stage 1 in 16 bits keeps a whole model's sum beside the 16-bit gradients, stage
    3 its share of one; the 16-bit gradients of stages 2 and 3 are gone as soon as they are added. Where the optimizer
    is in host memory, DeepSpeed keeps its share of the masters, of the sum and of a buffer for it there too.
    """
    stage, parts, compute = layout.stage, layout.parts, 2 if half else 4
    held, learning, sharded = parameters + critic, parameters - frozen, layout.shards_weights
    trained = learning + critic
    weights = held * (4 if stage is None and not layout.masters_apart else compute) / (parts if sharded else 1)
    second = held * compute / layout.zpg if layout.zpg > 1 else 0
    keeps_sums = stage == 3 or (stage == 1 and half)
    own = 0 if stage == 3 else 2 if keeps_sums else 4 / (1 if stage == 1 else parts)
    gradients = max(learning, critic) * own
    sums = trained * 4 / (1 if stage == 1 else parts) if keeps_sums else 0
    masters_apart = layout.masters_apart or (stage is not None and (half or layout.adam_on_cpu))
    optimizer = trained * (4 * masters_apart + 8 * adam) / parts
    copy = reference * parameters * compute / layout.ref_size
    mean = average * 4 * learning / parts
    host = copy if layout.ref_on_cpu else 0.0
    host += frozen * 4 / parts if layout.masters_apart else 0  # as they came in, for the export
    if layout.states_on_cpu or (layout.adam_on_cpu and stage is not None):
        host, mean = host + mean, 0.0
    if layout.states_on_cpu:
        host += weights + gradients + optimizer
        weights = gradients = optimizer = 0
    elif layout.adam_on_cpu:
        stay = trained * 4 / parts if layout.masters_apart else 0
        host += optimizer - stay + (trained * 8 / parts if stage is not None else 0)
        optimizer, sums = stay, 0 if stage == 3 else sums
    return ModelStates(
        weights=weights + second,
        gradients=gradients,
        sums=sums,
        optimizer=optimizer,
        reference=0 if layout.ref_on_cpu else copy,
        average=mean,
        in_4_bits=in_4_bits,
        whole=max(learning * 4 + parameters * compute, critic * (4 + compute)) if layout.once_a_step else 0,
        gathered=parameters * compute if stage is None or (stage == 3 and parts > 1) else 0,
        host=host,
    )
