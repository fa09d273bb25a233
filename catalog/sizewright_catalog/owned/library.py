"""The library of machines that people own, by model."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from sizewright_catalog.capacity import (
    apple_working_set_bytes,
    bare_metal_visible_bytes,
    operating_system_bytes,
)
from sizewright_catalog.devices import devices
from sizewright_catalog.values import GIB, MIB, Device, Machine, Overhead


@dataclass(frozen=True, slots=True)
class MachineModel:
    """A machine by model, the most power it draws, and where its figures are from."""

    name: str
    title: str
    machine: Machine
    power_watts: float
    source: str


class _Entry(BaseModel):
    """One entry of `machine_library.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    title: Annotated[str, Field(min_length=1)]
    vcpus: Annotated[int, Field(ge=1)]
    cpu_architecture: Literal["x86_64", "arm64"]
    memory_gib: Annotated[float, Field(gt=0)]
    visible_mib: Annotated[int, Field(gt=0)] | None = None
    device: str = ""
    device_count: Annotated[int, Field(ge=0)] = 0
    unified_memory: bool = False
    power_watts: Annotated[float, Field(gt=0)]
    source: Annotated[str, Field(min_length=1)]
    assumed: str = ""


class _Library(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    about: str = Field(alias="_about")
    machines: tuple[_Entry, ...]


@cache
def models() -> dict[str, MachineModel]:
    """Every model by name, in the order of names."""
    file = resources.files("sizewright_catalog").joinpath("data/machine_library.json")
    read = _Library.model_validate_json(file.read_text(encoding="utf-8"))
    return {entry.name: _model(entry) for entry in read.machines}


def find_model(name: str) -> MachineModel:
    """The model of a name. Raises KeyError with near names when there is none."""
    found = models().get(name)
    if found is None:
        near = difflib.get_close_matches(name, models(), n=3)
        hint = f"; near: {', '.join(near)}" if near else ""
        raise KeyError(f"no machine model {name!r}{hint}")
    return found


def _model(entry: _Entry) -> MachineModel:
    nominal = int(entry.memory_gib * GIB)
    visible = entry.visible_mib * MIB if entry.visible_mib else bare_metal_visible_bytes(nominal)
    system = min(operating_system_bytes(), visible)
    usable = visible - system
    device = devices()[entry.device] if entry.device else None
    words = entry.source if entry.visible_mib else "low share of bare-metal machines measured"
    machine = Machine(
        name=f"machines/{entry.name}",
        vcpus=entry.vcpus,
        cpu_architecture=entry.cpu_architecture,
        host_nominal_bytes=nominal,
        host_usable_bytes=usable,
        overheads=(
            Overhead("firmware-and-kernel", nominal - visible, words),
            Overhead("operating-system", system, "as for every node"),
        ),
        device=device,
        device_count=entry.device_count,
        slice=1.0,
        gpu_usable_bytes=_gpu_usable(entry, device, nominal, usable),
        unified_memory=entry.unified_memory,
        model=entry.name,
    )
    source = f"{entry.source}; assumed: {entry.assumed}" if entry.assumed else entry.source
    return MachineModel(entry.name, entry.title, machine, entry.power_watts, source)


def _gpu_usable(entry: _Entry, device: Device | None, nominal: int, usable: int) -> int:
    """What each GPU can have: its own memory, or as much of the host's as the system lets it."""
    if device is None:
        return 0
    if entry.unified_memory:
        return min(usable, apple_working_set_bytes(nominal)) if device.vendor == "apple" else usable
    if device.usable_bytes is None:
        raise ValueError(f"{entry.name}: no reading is known for {device.name}")
    return device.usable_bytes
