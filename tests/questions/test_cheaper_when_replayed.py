"""A cheaper machine that the search's bound leaves out is named; advice replays it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sizewright.v1 import plan_pb2, sizing_service_pb2
from sizewright_client import SizingClient, load_request

QUESTIONS = Path(__file__).parents[2] / "examples" / "questions"


@pytest.fixture(scope="module")
def engine() -> Iterator[SizingClient]:
    with SizingClient.embedded(timeout_seconds=60) as client:
        yield client


def codes(name: str, engine: SizingClient, *, advise: bool) -> dict[str, str]:
    request = load_request(str(QUESTIONS / f"{name}.yaml"))
    request.advise = advise
    return {one.code: one.message for one in engine.recommend(request).warnings}


def test_a_machine_that_check_finds_to_fit_is_said_to_fit_when_it_is_replayed(
    engine: SizingClient,
) -> None:
    request = load_request(str(QUESTIONS / "vit-large-spot.yaml"))
    checked = engine.check_fit(
        sizing_service_pb2.CheckFitRequest(
            workload=request.workload, instance_type="providers/aws/instanceTypes/g6.4xlarge"
        )
    )
    quick = codes("vit-large-spot", engine, advise=False)
    replayed = codes("vit-large-spot", engine, advise=True)

    assert checked.verdict == plan_pb2.VERDICT_FITS
    assert quick["cheaper-tight"].startswith("aws g6.4xlarge, at $")
    assert "cheaper-when-replayed" not in quick
    assert replayed["cheaper-when-replayed"].startswith("aws g6.4xlarge, at $")
    assert "cheaper-tight" not in replayed


def test_a_machine_that_is_tight_replayed_too_stays_tight(engine: SizingClient) -> None:
    replayed = codes("full-fine-tune-8b", engine, advise=True)

    assert "cheaper-tight" in replayed
    assert "cheaper-when-replayed" not in replayed
