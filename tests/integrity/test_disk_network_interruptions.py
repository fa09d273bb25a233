"""Local disk, network, interruptions of the bundled snapshot: known with a source, or unknown."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

import numpy as np
import pytest

from sizewright_catalog.type_facts import FABRICS, documented
from sizewright_catalog.values import GIB, TERMS

if TYPE_CHECKING:
    from bundled_catalog import Bundled

GB = 10**9


def test_what_is_known_has_a_source_and_what_is_not_has_none(bundled: Bundled) -> None:
    for index in range(bundled.catalog.type_count):
        kind = bundled.catalog.instance_type(index)
        assert (kind.local_disk_bytes is None) == (kind.local_disk_source == "")
        if kind.network is not None:
            assert kind.network.source
            assert kind.network.fabric in FABRICS
            assert kind.network.mbps is None or kind.network.mbps > 0


def test_no_node_holds_up_more_than_the_fastest_that_is_sold(bundled: Bundled) -> None:
    assert int(bundled.catalog.types.network_mbps.max()) == 6_400_000
    assert int(bundled.catalog.types.local_disk_bytes.max()) == 335_520 * GB


@pytest.mark.parametrize(
    ("provider", "name", "disk", "mbps", "fabric"),
    [
        ("aws", "p5.48xlarge", 30_400 * GB, 3_200_000, "efa"),
        ("aws", "g6e.24xlarge", 3_800 * GB, 200_000, "efa"),
        ("aws", "g5.xlarge", 250 * GB, 2_500, "ethernet"),
        ("aws", "t3.micro", 0, 64, "ethernet"),
        ("gcp", "a3-highgpu-8g", 6_000 * GIB, 800_000, "gpudirect-tcpx"),
        ("gcp", "c3-standard-8-lssd", 750 * GIB, None, ""),
        ("gcp", "n1-standard-8", None, None, ""),
        ("azure", "Standard_ND96isr_H100_v5", 30_345_451 * 2**20, 3_200_000, "infiniband"),
        ("azure", "Standard_NC24rs_v3", 3_018_752 * 2**20, None, "infiniband"),
        ("azure", "Standard_D2_v5", 0, None, "ethernet"),
        ("nebius", "gpu-h100-sxm_8gpu-128vcpu-1600gb", None, 3_200_000, "infiniband"),
    ],
)
def test_figures_that_were_looked_up(
    provider: str, name: str, disk: int | None, mbps: int | None, fabric: str, bundled: Bundled
) -> None:
    kind = bundled.type(provider, name)
    known = kind.network

    assert kind.local_disk_bytes == disk
    assert (known.mbps, known.fabric) if known else (mbps, fabric) == (None, "")


def test_every_type_that_is_documented_is_one_that_is_sold(bundled: Bundled) -> None:
    text = resources.files("sizewright_catalog").joinpath("data/type_facts.csv").read_text("utf-8")
    rows = [line.split(",")[:2] for line in text.splitlines()[1:]]

    assert len(rows) >= 50
    for provider, name in rows:
        facts = documented(provider, name)
        assert facts is not None
        assert bundled.type(provider, name).network == facts.network


def test_marketplaces_say_nothing_of_their_network(bundled: Bundled) -> None:
    types, providers = bundled.catalog.types, bundled.catalog.providers
    for provider in ("vast-ai", "salad", "akash", "runpod"):
        mine = types.provider == providers.index(provider)
        assert mine.any()
        assert (types.fabric[mine] == 0).all()


def test_spot_alone_is_taken_back_and_by_one_of_five_bands(bundled: Bundled) -> None:
    offers = bundled.catalog.offers
    known = offers.interruption_high_percent >= 0
    low, high = offers.interruption_low_percent[known], offers.interruption_high_percent[known]

    assert (offers.term[known] == TERMS.index("spot")).all()
    assert set(zip(low.tolist(), high.tolist(), strict=True)) == {
        (0, 5),
        (5, 10),
        (10, 15),
        (15, 20),
        (20, 100),
    }
    assert 10_000 <= int(known.sum()) <= 15_000
    assert (offers.interruption_low_percent[~known] == -1).all()
    assert all(np.asarray(bundled.catalog.interruption_sources)[offers.interruption_source[known]])
