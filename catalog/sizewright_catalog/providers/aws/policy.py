"""The least-privilege policy of a refresh: what it calls, and nothing else."""

from __future__ import annotations

from typing import Any

#: Every call the provider makes. None of them changes or reads anything of the account's own.
CALLS = (
    "ec2:DescribeInstanceTypeOfferings",
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeRegions",
    "ec2:DescribeSpotPriceHistory",
    "pricing:GetProducts",
    "savingsplans:DescribeSavingsPlansOfferingRates",
)
#: What placement scores need beside: they name zones by ids, which differ by account.
PLACEMENT_SCORES = ("ec2:DescribeAvailabilityZones", "ec2:GetSpotPlacementScores")


def policy(*, placement_scores: bool) -> dict[str, Any]:
    """An IAM policy document; with the call for spot placement scores where they are wanted.

    The calls know no resources of their own, so that "*" is the narrowest there is.
    """
    actions = [*CALLS, *PLACEMENT_SCORES] if placement_scores else list(CALLS)
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "SizewrightCatalogRefresh",
                "Effect": "Allow",
                "Action": sorted(actions),
                "Resource": "*",
            }
        ],
    }
