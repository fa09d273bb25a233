"""What a process holds on a GPU beside PyTorch's tensors: context, workspaces, collectives."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Literal, TypeAlias

from sizewright_server.estimation.data_files import data_of
from sizewright_server.estimation.memory import ByteRange, Part

MIB = 2**20

KernelLoading: TypeAlias = Literal["lazy", "eager"]
#: All that may be known of it; None where no version says so.
LOADINGS: tuple[KernelLoading | None, ...] = (None, "lazy", "eager")


@dataclass(frozen=True, slots=True)
class DeviceOverhead:
    """Overheads of one device: of the process, and of each further communicator of a layout."""

    context: Part
    workspaces: Part
    pair: Part
    group: Part
    #: Whether it is of a stated device. Workspaces are tensors of the caching allocator: of a known
    #: device they count in the allocated and reserved readings.
    known: bool = True
    #: What the device has, where it is known: cached blocks are given back before it is full.
    capacity_bytes: int | None = None

    def parts(self, communicators: int, largest_group: int) -> tuple[Part, ...]:
        """The named parts for a layout with that many communicators."""
        fixed = (self.context, self.workspaces)
        if communicators == 0:
            return fixed
        one = self.pair if largest_group <= 2 else self.group
        size = ByteRange(
            communicators * one.size.low_bytes,
            communicators * one.size.best_bytes,
            communicators * one.size.high_bytes,
        )
        numbers = f"{communicators} x {one.size.best_bytes // MIB} MiB"
        part = Part(one.name, size, one.formula, numbers, one.source, one.confidence)
        return (*fixed, part)

    def total(self, communicators: int, largest_group: int) -> ByteRange:
        """Their sum."""
        total = ByteRange(0, 0, 0)
        for part in self.parts(communicators, largest_group):
            total = total + part.size
        return total


@lru_cache(maxsize=1024)
def device_overhead(
    vendor: str | None, compute_capability: str | None, loading: KernelLoading | None = None
) -> DeviceOverhead:
    """The overheads of a device; for an unknown one (None) the widest interval of all.

    `vendor` is "nvidia" or "amd" (any case); `compute_capability` such as "8.9"; `loading` says
    whether CUDA loads kernels as they are used. Raises ValueError for a vendor whose overheads are
    not in the data file.
    """
    tables = _tables()
    return DeviceOverhead(
        known=vendor is not None,
        context=_part(
            "device-context",
            "CUDA context and loaded kernels",
            _loaded(_matching(tables["cuda_context"], vendor, compute_capability), loading),
        ),
        workspaces=_part(
            "library-workspaces",
            "cuBLAS workspaces of the forward and backward threads",
            _matching(tables["library_workspaces"], vendor, compute_capability),
        ),
        pair=_part(
            "collective-buffers",
            "communicators x buffers of one",
            tables["collective_buffers"][:1],
        ),
        group=_part(
            "collective-buffers",
            "communicators x buffers of one",
            _of_capability(tables["collective_buffers"][1:], compute_capability),
        ),
    )


@cache
def _tables() -> dict[str, list[dict[str, Any]]]:
    table: dict[str, list[dict[str, Any]]] = data_of("sizewright_server.estimation", "runtime")
    return table


def _matching(
    entries: list[dict[str, Any]], vendor: str | None, capability: str | None
) -> list[dict[str, Any]]:
    if vendor is None:
        return entries
    fitting = [e for e in entries if e["applies_to"].get("vendor") == vendor.lower()]
    fitting = _of_capability(fitting, capability)
    if not fitting:
        raise ValueError(f"no runtime overheads are known for {vendor} {capability or ''}".strip())
    return fitting


def _of_capability(entries: list[dict[str, Any]], capability: str | None) -> list[dict[str, Any]]:
    """The entries of a compute capability, the narrowest first; all where it is not known."""
    if not capability:
        return entries
    number = float(capability)
    fitting = [
        e
        for e in entries
        if e["applies_to"].get("compute_capability_min", 0.0) <= number
        and number < e["applies_to"].get("compute_capability_below", 1e9)
    ]
    # Tables without a way of loading have one entry for each generation, and one for the others.
    return fitting if any("loading" in e["applies_to"] for e in fitting) else fitting[:1]


def _loaded(entries: list[dict[str, Any]], loading: KernelLoading | None) -> list[dict[str, Any]]:
    """The entries of a way of loading kernels."""
    told = [e for e in entries if e["applies_to"].get("loading") == loading]
    if loading is not None and told:
        return told
    return [e for e in entries if e["applies_to"].get("loading") != "eager" or _unstated(e)]


def _unstated(entry: dict[str, Any]) -> bool:
    """It may apply where nothing is said of how kernels are loaded."""
    return bool(entry["applies_to"].get("loading_unstated"))


def _part(name: str, formula: str, entries: list[dict[str, Any]]) -> Part:
    """One part over all entries that may apply: the widest bounds, the middle of the values.

    Kernels are loaded as they are used unless it is told otherwise.
    """
    usual = [e for e in entries if e["applies_to"].get("loading") != "eager"] or entries
    values = sorted(int(e["value"]) for e in usual)
    best = values[len(values) // 2]
    size = ByteRange(
        min(int(e["low"]) for e in entries) * MIB,
        best * MIB,
        max(int(e["high"]) for e in entries) * MIB,
    )
    source = "; ".join(str(e["source"]) for e in entries)
    return Part(name, size, formula, f"{best} MiB", source, "medium")
