"""Hours a job takes on a plan, as far as they can be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sizewright_server.estimation.workload import Layout
from sizewright_server.planning.kinds import NodeKind

#: Hours of what cannot be told: it does not rank.
NEVER = np.inf


class Hours(Protocol):
    """The hours of one variant's job on any layout and kind of node."""

    def columns(self, layouts: Sequence[Layout], kinds: Sequence[NodeKind]) -> NDArray[np.float64]:
        """The best estimate: a row per layout, a column per kind; infinite where not known."""
        ...

    def of(self, layout: Layout, kind: NodeKind) -> tuple[float, float, float]:
        """Low, best and high for one."""
        ...


@dataclass(frozen=True, slots=True)
class ConstantHours:
    """A job that takes the same time everywhere, as its owner says."""

    hours: float

    def columns(self, layouts: Sequence[Layout], kinds: Sequence[NodeKind]) -> NDArray[np.float64]:
        """The same for all."""
        return np.full((len(layouts), len(kinds)), self.hours)

    def of(self, layout: Layout, kind: NodeKind) -> tuple[float, float, float]:
        """The same, without doubt."""
        return self.hours, self.hours, self.hours
