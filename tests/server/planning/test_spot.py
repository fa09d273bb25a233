"""What is said of how often spot capacity is taken back from a plan."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sizewright_catalog.values import Interruption
from sizewright_server.planning.spot import spot_notice


def band(low: int, high: int) -> Interruption:
    return Interruption(low, high, "AWS Spot Advisor 2025-06-28")


def test_of_one_node_the_provider_s_own_band_is_said() -> None:
    words = spot_notice(band(5, 10)).message

    assert words == (
        "Spot capacity can be taken away while the job runs: 5 to 10 % of such instances were "
        "within a month (AWS Spot Advisor 2025-06-28)."
    )


def test_of_several_nodes_it_is_said_how_often_one_of_them_goes() -> None:
    # Together: 5 %. Each by itself: 1 - 0.9^4 = 34.39 %.
    words = spot_notice(band(5, 10), nodes=4).message

    assert "At least one of 4 nodes is taken back within a month in 5 to 34 % of cases" in words


def test_a_job_of_some_hours_has_the_risk_of_its_hours() -> None:
    # A tenth of a month, two nodes: 1 - 0.8^0.1 = 2.2 %; 1 - 0.75^0.2 would be 5.6 % for 25 %.
    words = spot_notice(band(20, 25), nodes=2, job_hours=73.05).message

    assert "Within the 73 hours of the job that is 2.2 to 5.6 %." in words


def test_a_band_without_an_end_stays_without_one() -> None:
    words = spot_notice(band(20, 100), nodes=8, job_hours=24).message

    assert "more than 20 % of such instances" in words
    assert "in more than 20 % of cases" in words
    assert "of the job that is more than 0.73 %." in words


def test_where_nobody_says_how_often_nothing_is_made_up() -> None:
    words = spot_notice(None, nodes=8, job_hours=24).message

    assert words.endswith("nobody says how often it is.")


@pytest.mark.parametrize("hours", [None, float("inf"), 1_000.0])
def test_a_job_of_a_month_and_more_or_of_unknown_length_is_told_by_the_month(
    hours: float | None,
) -> None:
    assert "hours of the job" not in spot_notice(band(5, 10), 2, hours).message


@given(st.integers(1, 30), st.integers(1, 60), st.integers(2, 64))
def test_more_nodes_are_taken_back_no_less_often(low: int, width: int, nodes: int) -> None:
    def most(count: int) -> float:
        words = spot_notice(band(low, min(low + width, 99)), count).message
        found = re.search(r"in ([\d.]+) to (?:over )?([\d.]+) % of cases", words)
        assert found is not None
        assert float(found[1]) == float(f"{low:.2g}")
        return float(found[2])

    assert most(nodes) <= most(nodes + 1)
    assert most(nodes) >= min(low + width, 99)
