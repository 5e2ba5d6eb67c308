"""Where a KL term stands, how strongly, and how its coefficient is adapted (algorithms S6.3, S6.4, S3.4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lightrft.algorithms.control import KLController


@dataclass
class KLTerm:
    """place: "reward", "loss", "drift" (from the old policy) or "off"; `controller` holds that place's coefficient.

    beside: the fixed coefficient of a KL to the reference in the loss that stands beside a drift.
    """

    place: str
    controller: KLController
    beside: float = 0.0

    def at(self, place: str) -> float:
        return self.controller.coefficient if self.place == place else 0.0

    @property
    def in_loss(self) -> float:
        return self.at("loss") + self.beside

    @property
    def needs_reference(self) -> bool:
        return self.at("reward") > 0 or self.in_loss > 0

    def after_step(self, metrics: Mapping[str, float], samples: int, optimizer_steps: float) -> dict[str, float]:
        """Adapts the coefficient to the KL of the rollout step; says which one it used.

        A drift is measured before the last optimizer step, so where only one was taken it says nothing.
        """
        used = {f"kl/coef_{self.place}": self.controller.coefficient} if self.place != "off" else {}
        measured = metrics.get("kl/drift" if self.place == "drift" else "kl/ref")
        if measured is not None and (self.place != "drift" or optimizer_steps > 1):
            self.controller.update(measured, samples)
        return used

    def state(self) -> dict[str, Any]:
        return {"place": self.place, **asdict(self.controller)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Goes on with the adapted coefficient, but for flags that say something else now: they win."""
        same = (state.get("place"), state.get("initial")) == (self.place, self.controller.initial)
        if same and self.controller.target is not None:
            self.controller.coefficient = float(state["coefficient"])
