"""What holds for every offer and type of the bundled snapshot."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import numpy as np

from sizewright_catalog.catalog import EPOCH_DAY
from sizewright_catalog.devices import devices
from sizewright_catalog.provider_status import provider_statuses
from sizewright_catalog.values import MIB, PRICE_KINDS

if TYPE_CHECKING:
    from bundled_catalog import Bundled

#: Nothing cheaper than a hundredth of a cent or dearer than 10,000 dollars an hour is sold.
LEAST_NANOS, MOST_NANOS = 100_000, 10_000 * 10**9


def test_there_are_at_least_90_000_priced_offers_over_3_000_types(bundled: Bundled) -> None:
    priced = np.unique(bundled.catalog.offers.type)

    assert bundled.catalog.offer_count >= 90_000
    assert len(priced) >= 3_000


def test_the_three_large_clouds_bring_most_of_them_on_demand_and_spot(bundled: Bundled) -> None:
    counts = {s.provider: s.offer_count for s in provider_statuses(bundled.catalog)}
    terms = bundled.catalog.offers.term

    assert counts["aws"] >= 30_000
    assert counts["azure"] >= 80_000
    assert counts["gcp"] >= 25_000
    assert len(counts) >= 24
    assert (terms == 0).sum() >= 90_000
    assert (terms == 1).sum() >= 40_000


def test_no_price_is_zero_or_absurd(bundled: Bundled) -> None:
    nanos = bundled.catalog.offers.nanos

    assert int(nanos.min()) >= LEAST_NANOS
    assert int(nanos.max()) <= MOST_NANOS


def test_every_price_names_its_source_its_day_and_its_kind(bundled: Bundled) -> None:
    offers, sources = bundled.catalog.offers, bundled.catalog.sources
    days = offers.day

    assert all(source.strip() for source in sources)
    assert 0 <= int(offers.source.min()) <= int(offers.source.max()) < len(sources)
    assert 0 <= int(offers.kind.min()) <= int(offers.kind.max()) < len(PRICE_KINDS)
    # The oldest source is of August 2024; nothing is from after the day of the build.
    assert int(days.min()) >= (date(2024, 8, 9) - EPOCH_DAY).days
    assert int(days.max()) <= (bundled.catalog.build_day - EPOCH_DAY).days


def test_prices_that_were_worked_out_are_never_called_list_prices(bundled: Bundled) -> None:
    offers, sources = bundled.catalog.offers, bundled.catalog.sources
    worked_out = [i for i, text in enumerate(sources) if " x " in text or "composed" in text]

    assert len(worked_out) >= 5
    assert not (offers.kind[np.isin(offers.source, worked_out)] == 0).any()
    assert int((offers.kind == 1).sum()) >= 20_000
    assert int((offers.kind == 2).sum()) >= 41


def test_a_region_has_a_type_on_a_term_once(bundled: Bundled) -> None:
    offers = bundled.catalog.offers
    keys = np.stack([offers.type, offers.region, offers.term, offers.currency])

    assert np.unique(keys, axis=1).shape[1] == bundled.catalog.offer_count


def test_usable_memory_is_below_what_is_sold(bundled: Bundled) -> None:
    types = bundled.catalog.types
    sold = types.host_nominal_bytes > 0

    assert (types.host_usable_bytes[sold] < types.host_nominal_bytes[sold]).all()
    assert (types.host_usable_bytes >= 0).all()
    assert (types.gpu_usable_bytes >= 0).all()


def test_usable_gpu_memory_is_at_most_the_driver_total_of_the_slice(bundled: Bundled) -> None:
    catalog = bundled.catalog
    columns = (catalog.types.device, catalog.types.slice, catalog.types.gpu_usable_bytes)
    for device, share, usable in zip(*(c.tolist() for c in columns), strict=True):
        if not usable:
            continue
        known = catalog.devices[device]
        assert known is not None
        assert known.driver_total_bytes is not None
        assert usable <= known.driver_total_bytes * share
        assert usable <= known.nominal_bytes


def test_named_overheads_lead_from_what_is_sold_to_what_is_usable(bundled: Bundled) -> None:
    for index in range(0, bundled.catalog.type_count, 7):
        made = bundled.catalog.instance_type(index)
        if made.host_usable_bytes == 0:
            continue
        taken = sum(overhead.size_bytes for overhead in made.overheads)
        assert made.host_nominal_bytes - taken == made.host_usable_bytes
        assert all(overhead.source for overhead in made.overheads)


def test_a_type_without_known_gpu_memory_says_why_it_cannot_be_sized(bundled: Bundled) -> None:
    types, reasons = bundled.catalog.types, bundled.catalog.reasons
    with_gpu = (types.device >= 0) & (types.device_count > 0)
    unknown = with_gpu & (types.gpu_usable_bytes == 0)

    assert unknown.any()
    assert all(reasons[i] for i in types.reason[unknown].tolist())


def test_a_type_without_known_host_memory_says_so(bundled: Bundled) -> None:
    types, reasons = bundled.catalog.types, bundled.catalog.reasons
    unknown = types.host_nominal_bytes == 0

    assert {reasons[i] for i in types.reason[unknown].tolist()} == {
        "the source states no host memory"
    }


def test_a_device_that_is_not_in_the_table_is_refused_not_guessed(bundled: Bundled) -> None:
    catalog, known = bundled.catalog, devices()
    for number, name in enumerate(catalog.device_names):
        if name in known:
            continue
        mine = catalog.types.device == number
        assert (catalog.types.gpu_usable_bytes[mine] == 0).all()
        assert (catalog.types.reason[mine] != 0).all()


def test_every_device_that_can_be_sized_has_a_plausible_driver_reading() -> None:
    for device in devices().values():
        if device.driver_total_bytes is not None:
            share = device.driver_total_bytes / device.nominal_bytes
            assert 0.89 <= share <= 1.0, device.name
            assert device.driver_total_bytes % MIB == 0
