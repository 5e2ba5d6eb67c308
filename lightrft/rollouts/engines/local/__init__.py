"""The in-process engine. By default it samples from the training module itself, so its weights can never be stale.

engine.py         which weights, and which requests are decoded together
own_weights.py    a copy in another precision (`--engine_dtype`)
packed.py         weights laid out for a CPU's matrix products, for one generation
decoding.py       which requests are decoded together: places, and who takes them
past.py           what the model has seen of each row
plain.py          on a CPU, the step of one token without the library's modules
replay.py         on a GPU, the step of one token as a CUDA graph
samples.py        what is drawn for each row

A prompt's keys and values are computed once and fanned out to its samples; a finished row's place is taken by another.
The noise of a token depends on the response's seed and the token's index only (engines/noise.py), so which prompts
share a batch, and on which rank, changes a response through floating-point rounding at most.
"""

from lightrft.rollouts.engines.local.engine import LocalEngine
from lightrft.rollouts.engines.local.own_weights import OwnWeights

__all__ = ["LocalEngine", "OwnWeights"]
