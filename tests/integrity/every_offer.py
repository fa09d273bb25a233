"""The planner's promise worked out the slow way, over every offer of a catalog: plain loops.

What a layout needs is asked of the estimator. What an offer has, whether it is allowed, whether a
device runs the workload and what it costs is decided here, by nothing of the planner's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import Any

from device_truth import runs
from random_questions import Json
from sizewright_catalog.catalog import Catalog
from sizewright_catalog.values import Device, InstanceType, Offer
from sizewright_server.estimation.preparation import AnyWorkload, prepare_any
from sizewright_server.estimation.runtime import DeviceOverhead, device_overhead
from sizewright_server.estimation.serving.devices import device_class, serving_device
from sizewright_server.estimation.serving.prepared import PreparedServing
from sizewright_server.estimation.serving.run import ServingDevice
from sizewright_server.estimation.workload import Layout
from sizewright_server.planning.hours import Hours
from sizewright_server.planning.kinds import NodeKind

DAY = 86_400


@dataclass(frozen=True)
class Way:
    """A plan that fits: offer, nodes, cost an hour, share of memory left free, hours of the job."""

    offer: Offer
    nodes: int
    nanos: int
    free_share: float
    hours: float = 0.0

    @property
    def job_nanos(self) -> float:
        return self.nanos * self.hours


@dataclass
class SlowPlanner:
    """One question, answered by looking at everything."""

    question: Json
    workload: AnyWorkload
    today: date
    hours: Hours | None = None
    _known: dict[tuple[Any, ...], list[tuple[float, float]]] = field(default_factory=dict)

    @cached_property
    def prepared(self) -> Any:
        return prepare_any(self.workload)

    @property
    def asked(self) -> Json:
        constraints: Json = self.question["constraints"]
        return constraints

    def ways(self, offers: list[Offer]) -> Iterator[Way]:
        """Every plan that fits on every node count: the freest, and for a job the fastest."""
        for offer in offers:
            if not self._sold(offer) or not self._allowed(offer) or not self._runs(offer):
                continue
            for nodes in range(self.asked.get("minNodes", 1), self.asked["maxNodes"] + 1):
                cost = offer.price.per_hour_nanos * nodes
                for free, hours in self._fitting(offer.instance_type, nodes):
                    if self._affordable(cost, hours):
                        yield Way(offer, nodes, cost, free, hours)

    def _sold(self, offer: Offer) -> bool:
        both = {offer.availability, offer.instance_type.availability}
        return both == {"available"} and offer.price.currency == "USD"

    def _runs(self, offer: Offer) -> bool:
        kind = offer.instance_type
        if not self.workload.on_gpu:
            return kind.host_usable_bytes > 0
        if kind.device is None or kind.device_count == 0 or kind.unsizable_reason:
            return False
        return runs(kind.device.name, self.question["workload"])

    def _allowed(self, offer: Offer) -> bool:
        return all(check(offer, self.asked) for check in (_place, _price, _machine, _network))

    def _affordable(self, cost: int, hours: float) -> bool:
        hourly = int(self.asked.get("maxCostPerHourNanosUsd", 0))
        whole = int(self.asked.get("maxCostPerJobNanosUsd", 0))
        return (not hourly or cost <= hourly) and (not whole or cost * hours <= whole)

    def _fitting(self, kind: InstanceType, nodes: int) -> list[tuple[float, float]]:
        """Free share and hours of each layout that fits."""
        device = kind.device.name if kind.device and self.workload.on_gpu else ""
        network = (kind.network.fabric, kind.network.mbps) if kind.network else ("", None)
        memory = (kind.gpu_usable_bytes, kind.host_usable_bytes)
        key = (device, kind.device_count, kind.slice, memory, network, nodes)
        if key not in self._known:
            self._known[key] = list(self._worked_out(kind, nodes))
        return self._known[key]

    def _worked_out(self, kind: InstanceType, nodes: int) -> Iterator[tuple[float, float]]:
        on_gpu = self.workload.on_gpu
        per_node = kind.device_count if on_gpu else 1
        gpus, share = per_node * nodes, 1 - self.asked.get("headroom", 0.0)
        if on_gpu and kind.slice < 1 and gpus > 1:
            return
        if not self.asked.get("minGpus", 0) <= gpus <= (self.asked.get("maxGpus") or gpus):
            return
        overhead = _overhead(kind) if on_gpu else None
        for layout in self.prepared.layouts_for(gpus, per_node):
            if nodes > 1 and not self._connected(kind, layout):
                continue
            gpu, host = self._peaks(layout, per_node, overhead, kind.device)
            if gpu > int(kind.gpu_usable_bytes * share) and on_gpu:
                continue
            if host > int(kind.host_usable_bytes * share):
                continue
            used = [host / kind.host_usable_bytes]
            used += [gpu / kind.gpu_usable_bytes] if on_gpu else []
            yield 1 - max(used), self._hours(layout, kind)

    def _hours(self, layout: Layout, kind: InstanceType) -> float:
        if self.hours is None:
            return 0.0
        node = NodeKind(
            kind.device,
            kind.device_count,
            kind.slice,
            kind.gpu_usable_bytes,
            kind.host_usable_bytes,
            connected=bool(kind.network and kind.network.fabric),
            network_mbps=kind.network.mbps if kind.network else None,
            fabric=kind.network.fabric if kind.network else "",
        )
        return self.hours.of(layout, node)[1]

    def _peaks(
        self,
        layout: Layout,
        per_node: int,
        overhead: DeviceOverhead | None,
        device: Device | None,
    ) -> tuple[int, int]:
        """High estimates of one layout: bytes on a GPU and on a node's host."""
        columns = self.prepared.columns((layout,))
        host = int(columns.host_node_high_bytes[0])
        host += per_node * int(columns.host_rank_high_bytes[0])
        if overhead is None:
            return 0, host
        groups = int(columns.communicator_count[0]), int(columns.largest_group[0])
        reserved = int(columns.gpu_reserved_high_bytes[0])
        if isinstance(self.prepared, PreparedServing) and device is not None:
            # What an engine takes by default depends on the GPU it finds.
            seen = device_class(_served(device), self.prepared.workload.run.engine)
            reserved = int(self.prepared.reserved_on((layout,), seen)[2][0])
        return reserved + overhead.total(*groups).high_bytes, host

    def _connected(self, kind: InstanceType, layout: Layout) -> bool:
        """Whether a layout of several nodes has the network it needs."""
        if self.asked.get("allowUnknownNetwork") or (kind.network and kind.network.fabric):
            return True
        if "training" in self.question["workload"]:
            return False
        return max(layout.gpus // layout.dp, layout.ep) <= kind.device_count


def _served(device: Device) -> ServingDevice:
    total = device.driver_total_bytes or device.usable_bytes or device.nominal_bytes
    capability = float(device.compute_capability) if device.vendor == "nvidia" else 0.0
    return serving_device(device.name, device.vendor, total, device.link_gb_per_second, capability)


def _overhead(kind: InstanceType) -> DeviceOverhead:
    assert kind.device is not None
    nvidia = kind.device.vendor == "nvidia"
    return device_overhead(kind.device.vendor, kind.device.compute_capability if nvidia else None)


def _place(offer: Offer, asked: Json) -> bool:
    terms = {t.removeprefix("PURCHASE_TERM_").lower() for t in asked.get("purchase", ())}
    return (
        offer.instance_type.provider in asked.get("providers", [offer.instance_type.provider])
        and offer.region in asked.get("regions", [offer.region])
        and (not asked.get("zones") or bool(set(asked["zones"]) & set(offer.zones)))
        and offer.term.replace("-", "_") in (terms or {"on_demand", "spot"})
    )


def _price(offer: Offer, asked: Json) -> bool:
    if asked.get("listPricesOnly") and offer.price.kind not in ("list", "override"):
        return False
    if "maxPriceAge" in asked:
        age = (date(2026, 11, 24) - offer.price.day).days
        if age * DAY > int(asked["maxPriceAge"].removesuffix("s")):
            return False
    if "maxInterruption" in asked and offer.term == "spot":
        taken = offer.interruption
        return taken is not None and taken.high_percent <= asked["maxInterruption"] * 100
    return True


def _machine(offer: Offer, asked: Json) -> bool:
    kind = offer.instance_type
    device = kind.device.name if kind.device else ""
    disk = int(asked.get("minLocalDiskBytes", 0))
    return (
        device in asked.get("devices", [device])
        and device not in asked.get("excludeDevices", ())
        and kind.cpu_architecture in asked.get("cpuArchitectures", [kind.cpu_architecture])
        and kind.vcpus >= asked.get("minVcpus", 0)
        and (not disk or (kind.local_disk_bytes is not None and kind.local_disk_bytes >= disk))
    )


def _network(offer: Offer, asked: Json) -> bool:
    known = offer.instance_type.network
    fabric, mbps = (known.fabric, known.mbps) if known else ("", None)
    least = asked.get("minNetworkGbps", 0) * 1000
    return fabric in asked.get("fabrics", [fabric]) and (
        not least or (mbps is not None and mbps >= least)
    )


def offers_of(catalog: Catalog) -> list[Offer]:
    """Every offer as a value."""
    return [catalog.offer(i) for i in range(catalog.offer_count)]
