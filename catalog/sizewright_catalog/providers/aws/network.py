"""The network between instances, as AWS states it in two figures that do not always agree."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sizewright_catalog.values import MBPS_OF_GBPS, Network

SOURCE = "EC2 DescribeInstanceTypes"
#: "25 Gigabit", "4x 100 Gigabit", "12.5 Gigabit"; not "Up to 10 Gigabit", which does not hold.
HELD = re.compile(r"^(?:(\d+)x )?(\d+(?:\.\d+)?) Gigabit$")


def network(performance: str, baseline_gbps: float | None, *, efa: bool) -> Network:
    """The network of a type: what it holds up, the lower of its two figures.

    `performance` is the API's text, `baseline_gbps` the sum of the network cards' baselines; a
    burst ("Up to") is no promise, and words such as "Moderate" are no figure.
    """
    held = HELD.match(performance)
    figures = [] if baseline_gbps is None else [baseline_gbps]
    if held:
        figures.append(int(held[1] or 1) * float(held[2]))
    mbps = round(min(figures) * MBPS_OF_GBPS) if figures else None
    return Network(mbps, "efa" if efa else "ethernet", SOURCE)


def network_of(item: Mapping[str, Any]) -> Network | None:
    """The network of an item of DescribeInstanceTypes; None where it says nothing of one."""
    about = item.get("NetworkInfo")
    if about is None:
        return None
    cards = [card.get("BaselineBandwidthInGbps") for card in about.get("NetworkCards", ())]
    whole = sum(cards) if cards and None not in cards else None
    efa = bool(about.get("EfaSupported", False))
    return network(about.get("NetworkPerformance", ""), whole, efa=efa)
