"""Every speed the planner counts with is a band with its source."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from sizewright_server.planning.machine_speed import bands
from sizewright_server.planning.offload_time import disks


def leaves(name: str, table: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Entries with a value, however deep they lie."""
    if "value" in table:
        yield name, table
        return
    for key, inner in table.items():
        if isinstance(inner, dict):
            yield from leaves(f"{name}.{key}", inner)


BANDS = dict([*leaves("throughput", bands()), *leaves("disks", disks())])


@pytest.mark.parametrize("name", BANDS)
def test_a_band_has_its_ends_in_order_and_a_source(name: str) -> None:
    band = BANDS[name]
    ends = [band["low"], band["value"], band["high"]]

    # `low` is the slow end: of what is waited for it is the larger.
    assert ends in (sorted(ends), sorted(ends, reverse=True))
    assert len(band["source"]) > 10


@pytest.mark.parametrize("name", disks().keys() - {"_about"})
def test_what_stands_in_for_memory_says_whose_figures_it_has_and_of_when(name: str) -> None:
    band = disks()[name]

    assert band["named"]
    assert re.fullmatch(r"20\d\d-\d\d", band["as_of"])
