"""One field of a request changed, and the workload that comes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from sizewright_server.estimation.classical.cpu_network import CpuWorkload
from sizewright_server.estimation.preparation import AnyWorkload
from sizewright_server.estimation.workload import Training, Workload


@dataclass(frozen=True, slots=True)
class Change:
    """One field of the request, before and after."""

    field: str
    before: str
    after: str


#: A workload with some fields changed.
Form: TypeAlias = tuple[AnyWorkload, tuple[Change, ...]]
#: From a workload to the forms a technique may give it, mildest first.
Rule: TypeAlias = Callable[[AnyWorkload], Iterator[Form]]


def with_run(workload: AnyWorkload, field: str, before: object, after: object, **to: Any) -> Form:
    """A workload with fields of its run replaced, and the change as people see it."""
    assert isinstance(workload, Workload | CpuWorkload)
    section = "training" if isinstance(workload.run, Training) else "inference"
    change = Change(f"workload.{section}.{field}", str(before), str(after))
    return replace(workload, run=replace(workload.run, **to)), (change,)
