"""A refresh that goes well: what comes is served, what changed is told, nothing else moves."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from refresh_rig import ALL_OFFERS, Rig, prices
from sizewright_catalog.catalog import Catalog
from sizewright_catalog.providers.contract import FetchContext, Page
from sizewright_catalog.store import Store
from stand_in_provider import NAME, StandIn
from stand_in_source import Answer

H100 = "providers/standin/regions/east-1/zones/-/instanceTypes/g.h100.8/terms/on-demand"


def test_before_the_first_refresh_the_bundled_catalog_is_served(standing: Rig) -> None:
    assert standing.served().catalog.version == Catalog.load().version
    assert not standing.served().problems


def test_a_refresh_adds_every_offer_and_leaves_other_providers_as_they_were(standing: Rig) -> None:
    bundled = Catalog.load()

    last = standing.refresh()

    served = standing.served().catalog
    assert (last.stage, last.offers, last.types) == ("done", ALL_OFFERS, 24)
    assert len(prices(served)) == ALL_OFFERS
    assert prices(served)[H100] == 51_840_000_000
    assert served.offer_count == bundled.offer_count + ALL_OFFERS
    assert prices(served, "gcp") == prices(bundled, "gcp")


def test_each_price_has_its_source_its_time_and_its_zones(refreshed: Rig) -> None:
    catalog = refreshed.served().catalog
    number = catalog.find_type(NAME, "g.h100.8")
    at = np.nonzero(catalog.offers.type == number)[0]
    offer = next(o for i in at if (o := catalog.offer(int(i))).name == H100)

    assert offer.zones == ("east-1a", "east-1b")
    assert offer.price.source == "stand-in price list"
    assert offer.price.day.isoformat() == "2026-11-24"
    assert offer.price.kind == "list"


def test_the_same_answers_give_the_same_version_and_a_new_success(refreshed: Rig) -> None:
    first, version = refreshed.record(), refreshed.served().catalog.version

    refreshed.refresh()

    assert refreshed.served().catalog.version == version
    assert len(refreshed.served().published.versions) == 2
    assert (refreshed.record().last_success or 0) > (first.last_success or 0)


def test_every_page_of_every_region_is_asked_for(refreshed: Rig) -> None:
    wanted = {f"/{region}?page={n}" for region in ("east-1", "north-1", "west-1") for n in range(5)}

    assert wanted <= set(refreshed.source.requests)


def test_progress_counts_up_to_all_scopes(standing: Rig) -> None:
    standing.refresh()

    fetches = [event for event in standing.events if event.stage == "fetch" and event.scopes]
    assert fetches[-1].done_scopes == fetches[-1].scopes == 3
    assert fetches[-1].offers == ALL_OFFERS
    stages = list(dict.fromkeys(event.stage for event in standing.events))
    assert stages == ["start", "fetch", "check", "merge", "write", "commit", "publish", "done"]


def test_a_change_of_prices_is_told_and_goes_into_the_history(refreshed: Rig) -> None:
    refreshed.source.price_factor = 1.1

    last = refreshed.refresh()

    assert last.changes is not None
    assert (last.changes.dearer, last.changes.cheaper) == (ALL_OFFERS, 0)
    store = Store(refreshed.home)
    found = store.price_changes(NAME, "g.h100.8", region="east-1", terms=("on-demand",))
    store.close()
    assert [(one.change.before_nanos, one.change.after_nanos) for one in found] == [
        (51_840_000_000, 57_024_000_000)
    ]


def test_a_type_that_is_no_longer_offered_is_kept_and_marked_as_retired(refreshed: Rig) -> None:
    def without_c12(_region: str, kinds: list[Answer], offers: list[Answer]) -> None:
        kinds[:] = [one for one in kinds if one["name"] != "c.12"]
        offers[:] = [one for one in offers if one["type"] != "c.12"]

    refreshed.source.change = without_c12
    last = refreshed.refresh()

    catalog = refreshed.served().catalog
    assert catalog.instance_type(catalog.find_type(NAME, "c.12")).availability == "retired"
    assert len(prices(catalog)) == ALL_OFFERS - 6
    assert last.changes is not None
    assert last.changes.removed_types == ("c.12",)


class Filtered(StandIn):
    """A provider that was told to ask for some types alone."""

    def fetch(self, scope: str, context: FetchContext) -> Iterator[Page]:
        context.filtered = True
        for page in super().fetch(scope, context):
            yield Page(
                [row for row in page.types if row.type == "c.1"],
                [row for row in page.offers if row.type == "c.1"],
            )


def test_what_was_not_asked_for_stays_as_it_was(refreshed: Rig) -> None:
    refreshed.provider, refreshed.source.price_factor = Filtered(), 1.5

    last = refreshed.refresh()

    catalog = refreshed.served().catalog
    assert (last.stage, last.held_back) == ("done", ())
    assert len(prices(catalog)) == ALL_OFFERS
    assert prices(catalog)[H100] == 51_840_000_000
    assert prices(catalog)[H100.replace("g.h100.8", "c.1")] == 120_000_000
    assert catalog.instance_type(catalog.find_type(NAME, "c.12")).availability == "available"


def test_a_type_without_any_price_is_marked_as_unpriced(standing: Rig) -> None:
    def unpriced(_region: str, kinds: list[Answer], offers: list[Answer]) -> None:
        offers[:] = [one for one in offers if one["type"] != "c.12"]

    standing.source.change = unpriced
    standing.refresh()

    catalog = standing.served().catalog
    assert catalog.instance_type(catalog.find_type(NAME, "c.12")).availability == "unpriced"


def test_the_version_before_is_kept_and_can_still_be_read(refreshed: Rig) -> None:
    before = refreshed.served().catalog.version
    refreshed.source.price_factor = 1.2

    refreshed.refresh()

    old = Catalog.load(refreshed.home.version(before))
    assert prices(old)[H100] == 51_840_000_000
    assert prices(refreshed.served().catalog)[H100] == 62_208_000_000


def test_a_reader_that_has_a_version_mapped_keeps_it_when_its_file_goes(refreshed: Rig) -> None:
    reader = refreshed.served().catalog
    refreshed.home.version(reader.version).unlink()

    assert prices(reader)[H100] == 51_840_000_000


def test_only_so_many_versions_are_kept(refreshed: Rig) -> None:
    for i in range(10):
        refreshed.source.price_factor = 1 + i / 100
        refreshed.refresh()

    files = list(refreshed.home.versions.iterdir())
    assert len(files) == len(refreshed.served().published.versions) == 8
