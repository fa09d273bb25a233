"""The memory techniques of a training message to values; collects what is wrong."""

from __future__ import annotations

from collections.abc import Iterable

from sizewright.v1 import workload_pb2 as pb
from sizewright_server.estimation.optimizers import StepKind, optimizers
from sizewright_server.estimation.problems import Violation
from sizewright_server.estimation.workload import Optimizer
from sizewright_server.wire.violations import one_of

STEPS: dict[int, StepKind] = {1: "foreach", 2: "fused", 3: "for-loop"}
DEFAULT_RANK = 128
MAX_RANK = 65_536


class TechniquesReader:
    """Reads what says how a training run saves memory. `problems` holds what was wrong."""

    def __init__(self, problems: list[Violation], path: str) -> None:
        self.problems = problems
        self.path = path

    def optimizer(self, message: pb.Optimizer, accumulation_steps: int) -> Optimizer | None:
        """The optimizer; None when its name or its step was wrong."""
        name = message.name
        if name not in optimizers():
            self._wrong("optimizer.name", one_of("optimizer", name, optimizers()))
            return None
        kind = optimizers()[name]
        step = STEPS.get(message.step, kind.steps[0])
        if step not in kind.steps:
            self._wrong(
                "optimizer.step", f"{name!r} has no {step!r} step; use {_quoted(kind.steps)}"
            )
        if not 0 <= message.rank <= MAX_RANK:
            self._wrong("optimizer.rank", f"must be from 0 to {MAX_RANK:,}, not {message.rank}")
        if message.in_backward and accumulation_steps > 1:
            self._wrong(
                "optimizer.in_backward",
                "a step in the backward pass cannot wait for gradients to accumulate; "
                "set gradient_accumulation_steps to 1",
            )
        rank = message.rank or DEFAULT_RANK
        return Optimizer(name, step, rank=rank, in_backward=message.in_backward)

    def _wrong(self, field: str, description: str) -> None:
        self.problems.append(Violation(f"{self.path}.{field}", description))


def _quoted(words: Iterable[str]) -> str:
    return " or ".join(repr(word) for word in words)
