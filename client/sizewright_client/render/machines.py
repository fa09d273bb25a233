"""Owned machines, the library of them, and a profile of this one, on a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.text import Text

from sizewright.v1 import catalog_pb2, catalog_service_pb2
from sizewright_catalog.money import amount
from sizewright_client.render.catalog import put_machine
from sizewright_client.render.figures import gib, printable, size
from sizewright_client.render.page import Page, grid_of


def put_machines(page: Page, machines: Sequence[catalog_pb2.Machine]) -> None:
    """Add owned machines, one to a line."""
    if not machines:
        page.say("no machine is registered; `sizewright machine add` registers one")
        return
    grid = grid_of(
        ("name", "left"),
        ("cost", "right"),
        ("vcpus", "right"),
        ("host", "right"),
        ("gpu", "left"),
    )
    heads = ("machine", "$/hour", "vCPUs", "host GiB", "GPUs")
    grid.add_row(*(Text(head, style="dim") for head in heads))
    for machine in machines:
        many = f" ({page.glyphs.times}{machine.count})" if machine.count > 1 else ""
        grid.add_row(
            printable(machine.name.removeprefix("machines/")) + many,
            amount(machine.cost_per_hour_nanos_usd),
            str(machine.vcpus),
            gib(machine.host_memory.usable_bytes),
            _gpus(page, machine),
        )
    page.put(grid)


def put_models(page: Page, models: Iterable[catalog_service_pb2.MachineModel]) -> None:
    """Add models of the library, one to a line."""
    grid = grid_of(
        ("model", "left"),
        ("host", "right"),
        ("sentence", "left"),
        ("power", "right"),
    )
    heads = ("model", "host GiB", "GPUs", "watts")
    grid.add_row(*(Text(head, style="dim") for head in heads))
    for model in models:
        grid.add_row(
            printable(model.name),
            gib(model.machine.host_memory.usable_bytes),
            _gpus(page, model.machine),
            f"{model.power_watts:,.0f}",
        )
    page.put(grid)


def put_local(page: Page, machine: catalog_pb2.Machine) -> None:
    """Add a profile: the machine as a job sees it, and what was read on it."""
    put_machine(page, machine)
    reading = machine.reading
    if reading.no_gpu_reason:
        page.say(reading.no_gpu_reason, style="dim", indent=4)
    if reading.memory_limit_bytes:
        page.say(f"memory limit {size(reading.memory_limit_bytes)}", indent=2)
    if reading.cpu_limit:
        page.say(f"processor quota {reading.cpu_limit:g}", indent=2)
    if reading.driver_version:
        page.say(f"NVIDIA driver {printable(reading.driver_version)}", indent=2)
    for number, gpu in enumerate(reading.gpus):
        page.say(_gpu_line(number, gpu), indent=2)
    for disk in reading.disks:
        free = f"{size(disk.free_bytes)} free of {size(disk.total_bytes)}"
        page.say(f"disk {printable(disk.mount)} ({disk.kind}): {free}", indent=2)


def _gpu_line(number: int, gpu: catalog_pb2.GpuReading) -> str:
    if not gpu.driver_total_bytes:
        return f"GPU {number} {printable(gpu.name)}: memory is the host's"
    jobs = "1 process" if gpu.processes == 1 else f"{gpu.processes} processes"
    kept = f", {size(gpu.reserved_bytes)} kept by the driver" if gpu.reserved_bytes else ""
    return (
        f"GPU {number} {printable(gpu.name)}: {size(gpu.driver_total_bytes)}, "
        f"{size(gpu.used_bytes)} in use by {jobs}{kept}"
    )


def _gpus(page: Page, machine: catalog_pb2.Machine) -> str:
    """Count, device and what of its memory a job can have."""
    if not machine.HasField("accelerators"):
        return "no GPU"
    gpu = machine.accelerators
    shared = " shared" if machine.unified_memory else ""
    what = f"{gpu.count} {page.glyphs.times} {printable(gpu.device)}"
    return f"{what}, {gib(gpu.usable_bytes)} GiB{shared}"
