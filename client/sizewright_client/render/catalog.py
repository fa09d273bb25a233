"""The catalog and machines on a page."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text

from sizewright.v1 import catalog_pb2, catalog_service_pb2
from sizewright_catalog.money import amount
from sizewright_client.render.figures import (
    count,
    day,
    gib,
    moment,
    printable,
    size,
    span,
)
from sizewright_client.render.page import Page, grid_of

#: Reasons shown of what a provider's last refresh held back.
MOST_TROUBLES = 6


def put_status(page: Page, status: catalog_service_pb2.GetCatalogStatusResponse) -> None:
    """Add the catalog's version and what it holds of each provider."""
    page.say(
        f"catalog {status.version[:12]}, built {day(status.build_time)}: "
        f"{count(status.offer_count)} offers of {count(status.instance_type_count)} types",
        style="bold",
    )
    for problem in status.problems:
        page.say(problem, style="red")
    grid = grid_of(
        ("provider", "left"),
        ("offers", "right"),
        ("types", "right"),
        ("estimated", "right"),
        ("oldest", "left"),
        ("newest", "left"),
        ("refreshed", "left"),
    )
    heads = ("provider", "offers", "types", "estimated", "oldest price", "newest", "refreshed")
    grid.add_row(*(Text(head, style="dim") for head in heads))
    for provider in status.providers:
        grid.add_row(
            printable(provider.provider),
            count(provider.offer_count),
            count(provider.instance_type_count),
            count(provider.estimated_offer_count),
            day(provider.oldest_price_time) if provider.offer_count else "-",
            day(provider.newest_price_time) if provider.offer_count else "-",
            _refreshed(provider),
        )
    page.put(grid)
    _put_troubles(page, status.providers)


def _refreshed(provider: catalog_pb2.ProviderStatus) -> str:
    """How long ago, or why not."""
    if provider.refresh_state == catalog_pb2.REFRESH_STATE_RUNNING:
        return "running"
    if not provider.HasField("last_success_time"):
        return "never"
    return f"{span(provider.age)} ago"


def _put_troubles(page: Page, providers: Iterable[catalog_pb2.ProviderStatus]) -> None:
    """Add what fails, and what is held back, of each provider that has either."""
    for one in providers:
        if one.refresh_state == catalog_pb2.REFRESH_STATE_FAILING:
            page.say(f"{one.provider} fails: {one.last_error}", style="red")
            later = f", next try {moment(one.next_try_time)}" * one.HasField("next_try_time")
            page.say(f"{one.failure_count} in a row{later}", indent=2)
        elif one.refresh_state == catalog_pb2.REFRESH_STATE_PARTIAL:
            held = sum(reason.row_count for reason in one.quarantines)
            page.say(f"{one.provider} went in, less what the checks hold back:", style="yellow")
            sentences = [f"{count(q.row_count)} rows: {q.reason}" for q in one.quarantines]
            sentences += [f"{scope.scope} failed: {scope.reason}" for scope in one.failed_scopes]
            page.points(sentences[:MOST_TROUBLES])
            if len(sentences) > MOST_TROUBLES:
                page.say(f"{count(held)} rows in all; -o json has every reason", indent=2)


def put_types(page: Page, types: Iterable[catalog_pb2.InstanceType]) -> None:
    """Add instance types, one to a line."""
    grid = grid_of(
        ("provider", "left"),
        ("name", "left"),
        ("vcpus", "right"),
        ("host", "right"),
        ("gpu", "left"),
    )
    heads = ("provider", "type", "vCPUs", "host GiB", "GPUs")
    grid.add_row(*(Text(head, style="dim") for head in heads))
    for kind in types:
        grid.add_row(
            printable(kind.provider),
            printable(kind.type),
            str(kind.vcpus),
            gib(kind.host_memory.usable_bytes or kind.host_memory.nominal_bytes),
            printable(_devices(page, kind)),
        )
    page.put(grid)


def put_offers(page: Page, offers: Iterable[catalog_pb2.Offer]) -> None:
    """Add offers, one to a line, in the order given."""
    grid = grid_of(
        ("cost", "right"),
        ("provider", "left"),
        ("name", "left"),
        ("place", "left"),
        ("term", "left"),
    )
    heads = ("$/hour", "provider", "type", "region", "term")
    grid.add_row(*(Text(head, style="dim") for head in heads))
    for offer in offers:
        term = catalog_pb2.PurchaseTerm.Name(offer.term).removeprefix("PURCHASE_TERM_")
        grid.add_row(
            amount(offer.price.per_hour_nanos_usd),
            printable(offer.provider),
            printable(offer.instance_type.type),
            printable(offer.zone or offer.region),
            printable(offer.commitment) or term.lower().replace("_", "-"),
        )
    page.put(grid)


def put_machine(page: Page, machine: catalog_pb2.InstanceType | catalog_pb2.Machine) -> None:
    """Add a machine: processors, and its memory with what is taken off before a job can have it."""
    page.say(machine.name, style="bold")
    page.say(f"{machine.vcpus} vCPUs, {machine.cpu_architecture}", indent=2)
    page.say(_devices(page, machine), indent=2)
    memory = machine.host_memory
    page.say(
        f"host memory: {size(memory.usable_bytes)} usable of {size(memory.nominal_bytes)}", indent=2
    )
    for overhead in memory.overheads:
        page.say(f"less {size(overhead.size_bytes)} {overhead.name}", indent=4)
        if overhead.source:
            page.say(overhead.source, style="dim", indent=6)
    _put_disk_and_network(page, machine)
    reason = getattr(machine, "unsizable_reason", "")
    if reason:
        page.say(f"cannot be sized: {reason}", style="yellow", indent=2)


def _put_disk_and_network(
    page: Page, machine: catalog_pb2.InstanceType | catalog_pb2.Machine
) -> None:
    """Add the local disk of a machine and how it reaches others, as far as is known."""
    disk = size(machine.local_disk_bytes) if machine.HasField("local_disk_bytes") else "not known"
    page.say(f"local disk: {disk}", indent=2)
    source = getattr(machine, "local_disk_source", "")
    if source:
        page.say(printable(source), style="dim", indent=6)
    known = machine.network
    speed = f"{known.bandwidth_gbps:,g} Gbit/s" if known.HasField("bandwidth_gbps") else "not known"
    fabric = f" over {printable(known.fabric)}" if known.fabric else ""
    page.say(f"network between nodes: {speed}{fabric}", indent=2)
    if known.source:
        page.say(printable(known.source), style="dim", indent=6)


def _devices(page: Page, machine: catalog_pb2.InstanceType | catalog_pb2.Machine) -> str:
    if not machine.HasField("accelerators"):
        return "no GPU"
    gpu = machine.accelerators
    share = f" ({gpu.slice:g} of one)" if 0 < gpu.slice < 1 else ""
    sizes = f"{gib(gpu.usable_bytes)} GiB usable of {gib(gpu.driver_total_bytes)}"
    return f"{gpu.count} {page.glyphs.times} {gpu.device}{share}, {sizes}"
