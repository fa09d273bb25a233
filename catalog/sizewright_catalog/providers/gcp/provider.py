"""The refresh of Google Cloud: machine types and SKUs are asked for once, for all regions."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

from sizewright_catalog.providers.contract import FetchContext, Garbage, Page, Refused, Schedule
from sizewright_catalog.providers.gcp.attached import with_gpus
from sizewright_catalog.providers.gcp.machines import (
    PROVIDER,
    Machine,
    Place,
    machine,
    offers,
    type_row,
)
from sizewright_catalog.providers.gcp.skus import ComponentPrices
from sizewright_catalog.providers.gcp.source import Clients, pages

#: Compute Engine in the billing catalog.
COMPUTE_ENGINE = "services/6F81-5844-456A"
MACHINES_ON_A_PAGE = 500
SKUS_ON_A_PAGE = 5000


class Gcp:
    """Google Cloud through google-cloud-compute and google-cloud-billing.

    Settings: `project`; `regions` (comma-separated; all by default); `endpoint_url`.
    """

    name = PROVIDER
    schedule = Schedule(every_seconds=12 * 3600)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clients: Clients | None = None
        self._machines: dict[str, Machine] = {}
        self._unreachable: set[str] = set()
        self._accelerators: dict[str, dict[str, int]] = {}
        self._prices: ComponentPrices | None = None

    def scopes(self, context: FetchContext) -> Sequence[str]:
        """The regions that have machines, or those of the settings among them."""
        self._clients = clients = Clients(context.settings)
        self._machines, self._unreachable = {}, set()
        client = clients.open(clients.compute.MachineTypesClient)
        request = clients.compute.AggregatedListMachineTypesRequest(
            project=clients.project, max_results=MACHINES_ON_A_PAGE
        )
        for page in pages("machineTypes.aggregatedList", client.aggregated_list, context, request):
            self._unreachable.update(_zone(name) for name in page.unreachables)
            # A scope without machines comes with a warning and no list.
            for scope in page.items.values():
                self._take(scope.machine_types)
        self._read_accelerators(clients, context)
        self._attach()
        found = {region for one in self._machines.values() for region in one.zones}
        found.update(zone.rsplit("-", 1)[0] for zone in self._unreachable)
        wanted = [word.strip() for word in context.settings.get("regions", "").split(",")]
        wanted = [word for word in wanted if word]
        missing = sorted(set(wanted) - found)
        if missing:
            raise Refused(f"no machine types in {', '.join(missing)}")
        return wanted or sorted(found)

    def fetch(self, scope: str, context: FetchContext) -> Iterator[Page]:
        """The types and offers of a region."""
        clients = self._clients
        if clients is None:
            raise Garbage("fetch was called before scopes")
        prices = self._component_prices(clients, context)
        self._ask_again(scope, clients, context)
        here = {name: self._zones(of, scope, context) for name, of in self._machines.items()}
        here = {name: zones for name, zones in here.items() if zones}
        yield Page(types=[type_row(self._machines[name]) for name in here])
        place = Place(scope, prices, context.now().strftime("%Y-%m-%dT%H:%M:%SZ"))
        sold = []
        for name, zones in here.items():
            of = self._machines[name]
            if of.retired or of.tpu:
                continue
            made = list(offers(of, zones, place))
            if not made:
                context.drop("gcp: a component has no SKU")
            sold += made
        yield Page(offers=sold)

    def _take(self, items: Sequence[Any]) -> None:
        """Takes machine types of a zone."""
        for item in items:
            zone = _zone(item.zone)
            made = self._machines.setdefault(item.name, machine(item))
            zones = made.zones.setdefault(zone.rsplit("-", 1)[0], [])
            if zone not in zones:
                zones.append(zone)

    def _read_accelerators(self, clients: Clients, context: FetchContext) -> None:
        """Which accelerator is in which zone, and how many an instance may have of it."""
        client = clients.open(clients.compute.AcceleratorTypesClient)
        request = clients.compute.AggregatedListAcceleratorTypesRequest(
            project=clients.project, max_results=MACHINES_ON_A_PAGE
        )
        operation = "acceleratorTypes.aggregatedList"
        for page in pages(operation, client.aggregated_list, context, request):
            for scope in page.items.values():
                for kind in scope.accelerator_types:
                    most = int(kind.maximum_cards_per_instance)
                    self._accelerators.setdefault(kind.name, {})[_zone(kind.zone)] = most

    def _attach(self) -> None:
        """Makes machines with GPUs of those that GPUs can be attached to."""
        for plain in list(self._machines.values()):
            for made in with_gpus(plain, self._accelerators):
                self._machines[made.name] = made

    def _zones(self, of: Machine, region: str, context: FetchContext) -> list[str]:
        """The zones of a region that have a machine type and its accelerator.

        Accelerators that are no accelerator type, as TPUs, are where their machines are.
        """
        zones = sorted(of.zones.get(region, ()))
        having = self._accelerators.get(of.accelerator)
        if having is None:
            return zones
        kept = [zone for zone in zones if zone in having]
        if len(kept) < len(zones):
            context.drop("gcp: the zone lacks the accelerator", len(zones) - len(kept))
        return kept

    def _ask_again(self, region: str, clients: Clients, context: FetchContext) -> None:
        """Asks zones of a region by themselves that the aggregated list could not reach."""
        for zone in sorted(self._unreachable):
            if zone.rsplit("-", 1)[0] != region:
                continue
            client = clients.open(clients.compute.MachineTypesClient)
            request = clients.compute.ListMachineTypesRequest(
                project=clients.project, zone=zone, max_results=MACHINES_ON_A_PAGE
            )
            for page in pages("machineTypes.list", client.list, context, request):
                with self._lock:
                    self._take(page.items)
                    self._attach()

    def _component_prices(self, clients: Clients, context: FetchContext) -> ComponentPrices:
        """The prices of all SKUs, asked for once by whichever region comes first."""
        with self._lock:
            if self._prices is None:
                prices = ComponentPrices()
                client = clients.open(clients.billing.CloudCatalogClient)
                request = clients.billing.ListSkusRequest(
                    parent=COMPUTE_ENGINE, page_size=SKUS_ON_A_PAGE, currency_code="USD"
                )
                for page in pages("skus.list", client.list_skus, context, request):
                    for sku in page.skus:
                        prices.add(sku)
                if prices.unreadable:
                    context.drop("gcp: SKU in another currency or unit", prices.unreadable)
                if not len(prices):
                    raise Garbage("skus.list: no SKU of a vCPU, memory or GPU")
                self._prices = prices
            return self._prices


def _zone(name: str) -> str:
    """The zone of a name or a URL that ends in it."""
    return name.rsplit("/", 1)[-1]
