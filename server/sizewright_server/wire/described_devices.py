"""Devices that the table does not know, as the owner of a machine describes them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sizewright.v1 import catalog_pb2 as pb
from sizewright_catalog.values import Device
from sizewright_server.estimation.problems import Violation
from sizewright_server.wire.violations import echoed

#: No driver says a longer one (NVML_DEVICE_NAME_V2_BUFFER_SIZE).
MAX_NAME_LENGTH = 96
#: Beyond any link between GPUs.
MAX_LINK_GB_PER_SECOND = 100_000
_CAPABILITY = re.compile(r"\d{1,2}(\.\d)?", re.ASCII)


def described_device(given: pb.Accelerators, path: str, found: list[Violation]) -> Device | None:
    """The device; None when something is wrong, which is then in `found`."""
    wrong = [Violation(f"{path}.{field}", words) for field, words in _wrong(given)]
    found += wrong
    if wrong:
        return None
    return Device(
        name=given.device,
        vendor="nvidia",
        architecture="",
        nominal_bytes=given.nominal_bytes or given.driver_total_bytes,
        driver_total_bytes=given.driver_total_bytes,
        compute_capability=given.compute_capability,
        link_gb_per_second=given.link_gb_per_second,
        evidence="stated by its owner",
    )


def _wrong(given: pb.Accelerators) -> Iterator[tuple[str, str]]:
    if not _CAPABILITY.fullmatch(given.compute_capability):
        unknown = f"{echoed(given.device)} is not in the device table"
        yield "device", f"{unknown}; give its compute_capability, such as '8.9'"
        # Mostly a name that is misspelt, of which nothing else has to be said.
        return
    if len(given.device) > MAX_NAME_LENGTH:
        yield "device", f"{echoed(given.device)} is longer than {MAX_NAME_LENGTH} characters"
    if given.driver_total_bytes <= 0:
        yield "driver_total_bytes", "must be above 0 with devices"
    if given.nominal_bytes < 0:
        yield "nominal_bytes", f"must be at least 0, not {given.nominal_bytes}"
    if not 0 <= given.link_gb_per_second <= MAX_LINK_GB_PER_SECOND:
        most = f"{MAX_LINK_GB_PER_SECOND:,}"
        yield "link_gb_per_second", f"must be from 0 to {most}, not {given.link_gb_per_second:g}"
