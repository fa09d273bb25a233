"""What a plan may cost: by the hour, and for the whole job."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sizewright_server.estimation.profile import Column
from sizewright_server.planning.plan import Constraints


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits on what is rented, in nano-dollars; None is no limit. Owned machines are paid for."""

    per_hour_nanos: int | None = None
    per_job_nanos: int | None = None

    @property
    def limited(self) -> bool:
        """Whether there is a limit at all."""
        return self.per_hour_nanos is not None or self.per_job_nanos is not None

    def allows(self, cost_nanos: Column, hours: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which plans are within it: their cost an hour, and the hours of their job."""
        within = np.ones(len(cost_nanos), dtype=np.bool_)
        if self.per_hour_nanos is not None:
            within &= cost_nanos <= self.per_hour_nanos
        if self.per_job_nanos is not None:
            within &= cost_nanos * hours <= self.per_job_nanos
        return within


def budget_of(constraints: Constraints) -> Budget:
    """The limits that are asked for."""
    return Budget(constraints.max_cost_per_hour_nanos_usd, constraints.max_cost_per_job_nanos_usd)
