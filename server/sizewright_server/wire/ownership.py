"""What owning a machine costs, as its owner states it."""

from __future__ import annotations

from sizewright.v1 import catalog_pb2 as pb
from sizewright_catalog.owned.library import MachineModel
from sizewright_catalog.owned.ownership import Ownership, cost_per_hour_nanos_usd
from sizewright_server.estimation.problems import Violation
from sizewright_server.wire import models

NO_LIFETIME = "is required with a purchase price: the years it is written off over"


def read_ownership(
    message: pb.Machine,
    section: models.MachineSection | None,
    model: MachineModel | None,
    path: str,
    found: list[Violation],
) -> Ownership | None:
    """What the cost per hour is computed from; None where it is stated, or nothing is."""
    if section is None or section.ownership is None:
        return None
    given, where = section.ownership, f"{path}.ownership"
    # A machine that was registered comes back with both; they say the same then.
    owned = Ownership(**given.model_dump())
    if given.purchase_price_nanos_usd and not given.lifetime_years:
        found.append(Violation(f"{where}.lifetime_years", NO_LIFETIME))
        return None
    if message.ownership.power_watts and not given.electricity_per_kwh_nanos_usd:
        words = "is required with power_watts: the price of a kWh"
        found.append(Violation(f"{where}.electricity_per_kwh_nanos_usd", words))
        return None
    if given.electricity_per_kwh_nanos_usd and not given.power_watts:
        words = "is required with a price of electricity, unless the model says it"
        found.append(Violation(f"{where}.power_watts", words))
        return None
    stated, computed = message.cost_per_hour_nanos_usd, cost_per_hour_nanos_usd(owned)
    if stated and stated != computed:
        words = f"{stated} is stated and {computed} computed from ownership: give one of them"
        found.append(Violation(f"{path}.cost_per_hour_nanos_usd", words))
        return None
    return owned
