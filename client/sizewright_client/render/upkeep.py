"""Refreshes, versions, differences and price histories on a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.text import Text

from sizewright.v1 import catalog_pb2, catalog_service_pb2
from sizewright_catalog.money import amount
from sizewright_client.render.figures import count, moment, printable
from sizewright_client.render.page import Page, grid_of

_SHOWN_REASONS = 6


def put_refreshed(page: Page, ended: Sequence[catalog_service_pb2.RefreshCatalogResponse]) -> None:
    """Add what became of each provider's refresh."""
    for one in ended:
        if one.stage != "done":
            page.say(f"{one.provider} {one.stage}: {one.message}", style="red")
            page.say("the last good version is served as before", indent=2)
            continue
        page.say(
            f"{one.provider}: version {one.version[:12]}, {count(one.offer_count)} offers of "
            f"{count(one.instance_type_count)} types",
            style="bold",
        )
        page.say(_changes(one.changes) or "nothing changed", indent=2)
        _put_held(page, one.quarantines, one.failed_scopes)


def put_watched(page: Page, now: catalog_service_pb2.WatchCatalogResponse) -> None:
    """Add what is served now, and what changed to it."""
    offers = sum(provider.offer_count for provider in now.providers)
    page.say(
        f"{moment(now.build_time)}  version {now.version[:12]}, {count(offers)} offers",
        style="bold",
    )
    for one in now.changes:
        page.say(f"{one.provider}: {_changes(one)}", indent=2)
    for provider in now.providers:
        if provider.refresh_state == catalog_pb2.REFRESH_STATE_RUNNING:
            page.say(f"{provider.provider} is being refreshed", indent=2)
        elif provider.failure_count:
            page.say(f"{provider.provider} fails: {provider.last_error}", style="yellow", indent=2)


def put_versions(page: Page, versions: Iterable[catalog_service_pb2.CatalogVersionEntry]) -> None:
    """Add versions, one to a line."""
    grid = grid_of(("version", "left"), ("since", "left"), ("offers", "right"), ("name", "left"))
    grid.add_row(*(Text(head, style="dim") for head in ("version", "since", "offers", "reason")))
    for one in versions:
        grid.add_row(
            one.version[:12],
            moment(one.swap_time),
            count(one.offer_count),
            printable(one.reason),
        )
    page.put(grid)
    if not grid.row_count - 1:
        page.say("none but the bundled one: nothing was refreshed or imported here")


def put_diff(page: Page, answer: catalog_service_pb2.DiffCatalogResponse) -> None:
    """Add how two versions differ."""
    page.say(f"from {answer.before[:12]} to {answer.after[:12]}", style="bold")
    for one in answer.changes:
        page.say(f"{one.provider}: {_changes(one)}", indent=2)
        for words, names in (("new types", one.added_types), ("types gone", one.removed_types)):
            if names:
                page.say(f"{words}: {_some(names)}", indent=4)
    if not answer.changes:
        page.say("no offer, price or type differs", indent=2)
    if answer.price_changes:
        page.heading("largest changes of price")
        _put_changes(page, answer.price_changes, with_time=False)


def put_history(page: Page, instance_type: str, changes: Sequence[catalog_pb2.PriceChange]) -> None:
    """Add the changes of a type's prices."""
    page.say(instance_type, style="bold")
    if not changes:
        page.say("no refresh changed a price of it", indent=2)
        return
    _put_changes(page, changes, with_time=True)


def _put_changes(
    page: Page, changes: Iterable[catalog_pb2.PriceChange], *, with_time: bool
) -> None:
    columns = [("when", "left")] if with_time else []
    columns += [("before", "right"), ("after", "right"), ("share", "right"), ("name", "left")]
    grid = grid_of(*columns)
    heads = ["when (UTC)"] if with_time else []
    heads += ["$/h before", "after", "", "offer"]
    grid.add_row(*(Text(head, style="dim") for head in heads))
    for one in changes:
        row = [moment(one.change_time)] if with_time else []
        before = amount(one.before_nanos) if one.HasField("before_nanos") else "new"
        after = amount(one.after_nanos) if one.HasField("after_nanos") else "gone"
        grid.add_row(*row, before, after, _share(one), printable(_place(one.offer)))
    page.put(grid)


def _share(change: catalog_pb2.PriceChange) -> str:
    if not change.HasField("after_nanos") or not change.before_nanos:
        return ""
    return f"{100 * (change.after_nanos / change.before_nanos - 1):+.0f} %"


def _place(offer: str) -> str:
    """Type, place and term of an offer's name."""
    parts = offer.split("/")
    if len(parts) != 10:
        return offer
    zone = "" if parts[5] == "-" else f" {parts[5]}"
    return f"{parts[7]} {parts[3]}{zone} {parts[9]}"


def _changes(one: catalog_pb2.OfferChanges) -> str:
    """Counts of what changed; empty where nothing did."""
    counts = (
        (one.added_count, "new"),
        (one.removed_count, "gone"),
        (one.dearer_count, "dearer"),
        (one.cheaper_count, "cheaper"),
    )
    return ", ".join(f"{count(number)} {words}" for number, words in counts if number)


def _put_held(
    page: Page,
    held: Sequence[catalog_pb2.Quarantine],
    failed: Sequence[catalog_pb2.FailedScope],
) -> None:
    sentences = [
        f"{count(one.row_count)} rows: {one.reason} ({_some(one.examples)})"
        for one in held[:_SHOWN_REASONS]
    ]
    sentences += [f"{one.scope} failed: {one.reason}" for one in failed[:_SHOWN_REASONS]]
    left = len(held) + len(failed) - len(sentences)
    sentences += [f"and {left} more; -o json has them all"] if left else []
    if sentences:
        page.points(sentences, style="yellow")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
