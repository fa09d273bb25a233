"""Why what a question asks for by name can be no plan, whatever else it says."""

from __future__ import annotations

from collections.abc import Iterator

from sizewright_catalog.values import AVAILABILITIES
from sizewright_server.estimation.memory import Notice
from sizewright_server.planning.devices import unsupported_reason
from sizewright_server.planning.index import OfferIndex
from sizewright_server.planning.plan import Constraints

#: Names that are told of: who lists more has other worries.
MOST_NAMES = 5
#: How what cannot be bought by the hour is sold.
SOLD = {
    "capacity-block-only": "is sold in capacity blocks alone",
    "reservation-only": "is sold by reservation alone",
    "retired": "is retired",
    "unpriced": "has no price that is known",
}
CODE = "named-cannot-run"


def named_notices(index: OfferIndex, asked: Constraints) -> tuple[Notice, ...]:
    """Of the devices and instance types that are asked for, those on which nothing can run."""
    if not asked.devices and not asked.instance_types:
        return ()
    told = [*_devices(index, asked), *_types(index, asked)]
    return tuple(Notice(CODE, f"{words}.") for words in told[:MOST_NAMES])


def _devices(index: OfferIndex, asked: Constraints) -> Iterator[str]:
    known = dict(zip(index.catalog.device_names, index.catalog.devices, strict=True))
    for name in asked.devices:
        device = known.get(name)
        if device is None:
            yield f"Nobody in the catalog offers {name}"
        elif reason := unsupported_reason(device):
            yield reason[0].upper() + reason[1:]


def _types(index: OfferIndex, asked: Constraints) -> Iterator[str]:
    names = index.catalog.type_names
    for name in asked.instance_types:
        found = [number for number, one in enumerate(names) if one == name]
        if not found:
            yield f"Nobody in the catalog offers an instance type {name}"
            continue
        reasons = [index.type_reasons[number] for number in found]
        marks = index.catalog.types.availability[found]
        if all(reasons):
            yield _sentence(name, reasons[0])
        elif marks.all():
            yield f"The instance type {name} {SOLD[AVAILABILITIES[int(marks[0])]]}"


def _sentence(name: str, reason: str) -> str:
    constraint, _, detail = reason.partition("|")
    if constraint == "no-accelerator":
        return f"The instance type {name} has no GPU"
    if constraint == "device-unsupported":
        return f"On the instance type {name}: {detail}"
    return f"The instance type {name} cannot be sized: {detail}"
