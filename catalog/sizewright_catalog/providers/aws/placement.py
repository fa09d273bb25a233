"""Spot placement scores: how likely AWS thinks spot capacity is to be had, zone by zone."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from sizewright_catalog.providers.aws.source import answered, listed, pages
from sizewright_catalog.providers.contract import FetchContext, Refused

#: Setting with the types that are asked for.
SETTING = "placement_scores"


def placement_scores(
    ec2: Any, region: str, offered: Container[str], context: FetchContext
) -> dict[tuple[str, str], int]:
    """Scores from 1 to 10 by type and zone, of the types that the settings name.

    One question a type, for one instance of it: a score is of the request as a whole. What AWS
    refuses, as when the questions of a day are used up, is counted and left without a score.
    """
    wanted = [name for name in listed(context, SETTING) if name in offered]
    if not wanted:
        return {}
    scores: dict[tuple[str, str], int] = {}
    try:
        found = answered("DescribeAvailabilityZones", ec2.describe_availability_zones)
        zones = {zone["ZoneId"]: zone["ZoneName"] for zone in found["AvailabilityZones"]}
        for name in wanted:
            asked = {
                "InstanceTypes": [name],
                "TargetCapacity": 1,
                "SingleAvailabilityZone": True,
                "RegionNames": [region],
            }
            for page in pages(ec2, "get_spot_placement_scores", context, **asked):
                for score in page["SpotPlacementScores"]:
                    zone = zones.get(score["AvailabilityZoneId"])
                    if zone is not None:
                        scores[name, zone] = int(score["Score"])
    except Refused as refused:
        context.drop(f"aws: no placement scores: {refused}")
    return scores
