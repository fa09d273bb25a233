"""Advice as a client gets it: every piece with its numbers, its source and what it takes."""

from __future__ import annotations

import pytest

from running_server import example
from sizewright.v1 import plan_pb2, sizing_service_pb2
from sizewright_client import SizingClient
from sizewright_client.errors import InvalidRequestError


def asked(name: str) -> sizing_service_pb2.RecommendRequest:
    """An example with advice."""
    request = example(name)
    request.advise = True
    request.max_results = 1
    return request


@pytest.mark.parametrize("name", ["llama3-8b-sft", "csv-to-boosting", "bert-base-finetune"])
def test_every_piece_of_advice_has_its_numbers_and_sources(name: str, client: SizingClient) -> None:
    response = client.recommend(asked(name))

    for advice in response.advice:
        assert advice.techniques
        assert advice.message.endswith(".")
        for technique in advice.techniques:
            assert technique.title
            assert technique.source
            assert technique.cost
            assert technique.changes
        if advice.HasField("recommendation"):
            first = response.recommendations[0]
            assert advice.recommendation.verdict == plan_pb2.VERDICT_FITS
            saved = first.cost_per_hour_nanos_usd - advice.recommendation.cost_per_hour_nanos_usd
            assert advice.cost_per_hour_saved_nanos_usd == saved
        else:
            assert advice.gpu_bytes_saved or advice.host_bytes_saved


def test_the_same_question_gets_the_same_advice_to_the_byte(client: SizingClient) -> None:
    first = client.recommend(asked("csv-to-boosting")).SerializeToString(deterministic=True)

    assert first == client.recommend(asked("csv-to-boosting")).SerializeToString(deterministic=True)


def test_a_csv_is_advised_to_be_read_in_batches_before_its_machine_is_bought(
    client: SizingClient,
) -> None:
    request = asked("csv-to-boosting")
    request.workload.dataset.ClearField("strings")

    names = {t.name for advice in client.recommend(request).advice for t in advice.techniques}

    assert "batch-iterator" in names


def test_a_technique_that_is_advice_alone_is_refused_with_what_to_state(
    client: SizingClient,
) -> None:
    request = example("llama3-8b-sft")
    request.techniques.extend(["smaller-model", "cpu-only"])

    with pytest.raises(InvalidRequestError, match="accelerator: cpu"):
        client.recommend(request)


def test_a_technique_that_no_word_stands_for_is_taken_where_it_is_named(
    client: SizingClient,
) -> None:
    request = example("llama3-8b-sft")
    request.constraints.devices.extend(["A10G"])
    request.constraints.max_gpus = 4
    plain = client.recommend(request).recommendations
    assert not any(plan.verdict == plan_pb2.VERDICT_FITS for plan in plain)
    request.techniques.extend(["nvme-offload"])

    plan = client.recommend(request).recommendations[0]

    assert [technique.name for technique in plan.techniques] == ["nvme-offload"]


def test_nothing_is_said_of_the_vcpus_of_a_machine_whose_owner_states_none(
    client: SizingClient,
) -> None:
    request = asked("xgboost-tabular")
    machine = request.machines.add(name="machines/box", cpu_architecture="x86_64")
    # Less than the plain fit needs and more than one over a table in batches.
    machine.host_memory.nominal_bytes = 64 * 2**30

    response = client.recommend(request)
    on_box = [a for a in response.advice if a.recommendation.machine.name == "machines/box"]

    assert on_box
    assert not [text for advice in on_box for text in advice.details if "vCPU" in text]
