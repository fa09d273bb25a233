"""What a catalog has of every instance type and offer, as parallel columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

Ints = NDArray[Any]


@dataclass(frozen=True, slots=True)
class TypeColumns:
    """One entry per instance type. Bytes are per node, or per device for `gpu_usable_bytes`.

    `device` is an index into `Catalog.devices` or -1; `reason` 0 means the type can be sized.
    `local_disk_bytes` and `network_mbps` are -1, `fabric` is 0 where not known.
    """

    provider: Ints
    vcpus: Ints
    cpu: Ints
    host_nominal_bytes: Ints
    host_usable_bytes: Ints
    device: Ints
    device_count: Ints
    slice: Ints
    gpu_usable_bytes: Ints
    reason: Ints
    availability: Ints
    local_disk_bytes: Ints
    local_disk_source: Ints
    network_mbps: Ints
    fabric: Ints
    network_source: Ints


@dataclass(frozen=True, slots=True)
class OfferColumns:
    """One entry per offer. `nanos` per node and hour; `day` counts from 1970-01-01.

    `zone` 0 means the whole region, `commitment` 0 none, `availability` 0 that it can be bought.
    The percents of interruption are -1 where not known.
    """

    type: Ints
    region: Ints
    zones: Ints
    zone: Ints
    term: Ints
    commitment: Ints
    nanos: Ints
    currency: Ints
    kind: Ints
    day: Ints
    second: Ints
    source: Ints
    availability: Ints
    spot_low_nanos: Ints
    spot_median_nanos: Ints
    placement_score: Ints
    interruption_low_percent: Ints
    interruption_high_percent: Ints
    interruption_source: Ints
