"""Wrong requests: every bad field at once, what would be right, and the server lives on."""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import grpc
import pytest

from running_server import details_of, example
from sizewright.v1 import catalog_pb2, sizing_service_pb2, workload_pb2
from sizewright.v1.sizing_service_pb2_grpc import SizingServiceStub
from sizewright_client import SizingClient
from sizewright_client.errors import InvalidRequestError, UnavailableError

Change = Callable[[sizing_service_pb2.RecommendRequest], object]
#: What a gRPC client takes of trailers unless told otherwise.
TRAILER_BYTES = 8192


def told(client: SizingClient, request: sizing_service_pb2.RecommendRequest) -> dict[str, str]:
    """What the server says of each wrong field."""
    with pytest.raises(InvalidRequestError) as caught:
        client.recommend(request)
    assert caught.value.reason == "INVALID_REQUEST"
    return {violation.field: violation.description for violation in caught.value.violations}


def raw(channel: grpc.Channel) -> Callable[[bytes], bytes]:
    """Recommend as a call of bytes."""
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
        "/sizewright.v1.SizingService/Recommend"
    )
    return call


def test_every_bad_field_is_named_at_once(client: SizingClient) -> None:
    request = example("llama3-8b-sft")
    request.workload.framework = "pytorhc"
    request.workload.model.preset = "meta-llama/Meta-Llama-3-8"
    request.workload.training.precision = "fp31"
    request.workload.training.optimizer.name = "adamv"
    request.workload.training.micro_batch = -1
    request.workload.training.seq_len = 0
    request.workload.dataset.rows = -5
    request.workload.dataset.dtype = "int46"
    request.workload.host.loader_workers = -2
    request.constraints.providers[:] = ["aws", "awz"]
    request.constraints.regions[:] = ["us-eastt-1"]
    request.constraints.headroom = 1.5
    request.max_results = 101
    request.machines.add(name="rack 1", vcpus=-1)

    wrong = told(client, request)

    assert wrong.keys() == {
        "workload.framework",
        "workload.model.preset",
        "workload.training.precision",
        "workload.training.optimizer.name",
        "workload.training.micro_batch",
        "workload.training.seq_len",
        "workload.dataset.rows",
        "workload.dataset.dtype",
        "workload.host.loader_workers",
        "constraints.providers.1",
        "constraints.regions.0",
        "constraints.headroom",
        "max_results",
        "machines.0.name",
        "machines.0.vcpus",
        "machines.0.cpu_architecture",
        "machines.0.host_memory.nominal_bytes",
    }


def _training(**values: Any) -> Change:
    def change(request: sizing_service_pb2.RecommendRequest) -> None:
        for name, value in values.items():
            setattr(request.workload.training, name, value)

    return change


WRONG: list[tuple[Change, str, str]] = [
    (_training(micro_batch=-1), "workload.training.micro_batch", "must be at least 1, not -1"),
    (_training(precision="bf61"), "workload.training.precision", "did you mean 'bf16'?"),
    (_training(precision=""), "workload.training.precision", "is required: 'fp32'"),
    (_training(precision="int8"), "workload.training.precision", "is not built yet"),
    (_training(attention="spda"), "workload.training.attention", "did you mean 'sdpa'?"),
    (
        _training(gradient_reduce_dtype="fp16"),
        "workload.training.gradient_reduce_dtype",
        "did you mean 'bf16'?",
    ),
    (
        lambda request: setattr(request.workload.training.optimizer, "name", "lian"),
        "workload.training.optimizer.name",
        "'lian' is not known; did you mean 'lion'?",
    ),
    (
        lambda request: setattr(request.workload.model, "preset", "meta-llama/Meta-Llama-3-8"),
        "workload.model.preset",
        "near: meta-llama/Meta-Llama-3-8B",
    ),
    (
        lambda request: setattr(request.workload.model.hf_config, "json", "{"),
        "workload.model.hf_config",
        "is not JSON",
    ),
    (
        lambda request: setattr(request.workload.model.hf_config, "json", "[" * 100_000),
        "workload.model.hf_config",
        "is not JSON",
    ),
    (
        lambda request: setattr(request.workload.model.hf_config, "json", "9" * 5000),
        "workload.model.hf_config",
        "is not JSON",
    ),
    (
        lambda request: setattr(request.workload.model.hf_config, "json", '{"model_type": "gpt7"}'),
        "workload.model.hf_config",
        "gpt7",
    ),
    (
        lambda request: request.constraints.providers.append("amazon"),
        "constraints.providers.3",
        "'amazon' is not known; ",
    ),
    (
        lambda request: request.constraints.regions.append("mars-north-1"),
        "constraints.regions.0",
        "'mars-north-1' is not known; ",
    ),
    (
        lambda request: request.constraints.devices.append("a100"),
        "constraints.devices.0",
        "did you mean 'A100-40GB-PCIe', 'A100-40GB-SXM', 'A100-80GB-PCIe' or 'A100-80GB-SXM'?",
    ),
    (
        lambda request: request.constraints.devices.append("H100-80GB-SX"),
        "constraints.devices.0",
        "did you mean",
    ),
    (
        lambda request: request.constraints.purchase.append(catalog_pb2.PURCHASE_TERM_OWNED),
        "constraints.purchase.2",
        "use 'on-demand', 'spot' or 'committed'",
    ),
    (
        lambda request: setattr(request.constraints, "headroom", float("nan")),
        "constraints.headroom",
        "must be",
    ),
    (
        lambda request: setattr(request.constraints, "min_local_disk_bytes", -1),
        "constraints.min_local_disk_bytes",
        "must be at least 0",
    ),
    (
        lambda request: setattr(request.constraints, "max_interruption", 1.5),
        "constraints.max_interruption",
        "must be at most 1",
    ),
    (
        lambda request: setattr(request.constraints, "max_interruption", float("nan")),
        "constraints.max_interruption",
        "must be",
    ),
    (
        lambda request: setattr(request.constraints, "min_network_gbps", float("inf")),
        "constraints.min_network_gbps",
        "must be",
    ),
    (
        lambda request: request.constraints.fabrics.append("infinband"),
        "constraints.fabrics.0",
        "did you mean 'infiniband'?",
    ),
    (
        lambda request: setattr(request.constraints, "max_cost_per_job_nanos_usd", 10**9),
        "job",
        "is required by constraints.max_cost_per_job",
    ),
    (
        lambda request: setattr(request.constraints, "max_cost_per_job_nanos_usd", -1),
        "constraints.max_cost_per_job_nanos_usd",
        "must be at least 0",
    ),
    (
        lambda request: setattr(request.workload.dataset, "rows", 2**63 - 1),
        "workload.dataset.rows",
        "must be at most 9,007,199,254,740,992",
    ),
]


@pytest.mark.parametrize(
    ("change", "field", "words"), WRONG, ids=[f"{field} {words}" for _, field, words in WRONG]
)
def test_a_wrong_field_is_named_with_what_would_be_right(
    change: Change, field: str, words: str, client: SizingClient
) -> None:
    request = example("llama3-8b-sft")
    change(request)

    wrong = told(client, request)

    assert wrong.keys() == {field}
    assert words in wrong[field]


def test_an_empty_request_is_told_what_every_request_needs(client: SizingClient) -> None:
    wrong = told(client, sizing_service_pb2.RecommendRequest())

    assert wrong.keys() == {"workload.model", "workload.training"}
    with pytest.raises(InvalidRequestError) as caught:
        client.check_fit(sizing_service_pb2.CheckFitRequest())
    assert {violation.field for violation in caught.value.violations} == {
        "workload.model",
        "workload.training",
        "instance_type",
    }
    with pytest.raises(InvalidRequestError):
        client.estimate(sizing_service_pb2.EstimateRequest())
    assert not client.batch_recommend(sizing_service_pb2.BatchRecommendRequest()).results


def test_a_batch_of_more_than_256_is_refused(client: SizingClient) -> None:
    batch = sizing_service_pb2.BatchRecommendRequest()
    for _ in range(257):
        batch.requests.add()

    with pytest.raises(InvalidRequestError, match="requests: has 257 entries; at most 256"):
        client.batch_recommend(batch)


def test_a_batch_whose_answer_would_be_huge_is_refused(client: SizingClient) -> None:
    batch = sizing_service_pb2.BatchRecommendRequest()
    for _ in range(40):
        one = batch.requests.add()
        one.CopyFrom(example("llama3-8b-sft"))
        one.explain, one.max_results = True, 100

    with pytest.raises(UnavailableError, match="larger than 16,777,216 bytes") as caught:
        client.batch_recommend(batch, timeout_seconds=30)

    assert caught.value.reason == "ANSWER_TOO_LARGE"


def _long_preset() -> sizing_service_pb2.RecommendRequest:
    request = example("llama3-8b-sft")
    request.workload.model.preset = "\u00e9" * 1_000_000
    return request


def _thousand_providers() -> sizing_service_pb2.RecommendRequest:
    request = example("llama3-8b-sft")
    request.constraints.providers[:] = [f"provider-{i}" for i in range(1000)]
    return request


def _many_machines() -> sizing_service_pb2.RecommendRequest:
    request = example("llama3-8b-sft")
    for _ in range(64):
        request.machines.add(name="\U0001f600" * 10_000, cpu_architecture="x" * 10_000, count=-1)
    return request


@pytest.mark.parametrize("make", [_long_preset, _thousand_providers, _many_machines])
def test_an_error_is_never_too_large_for_a_clients_trailers(
    make: Callable[[], sizing_service_pb2.RecommendRequest], channel: grpc.Channel
) -> None:
    with pytest.raises(grpc.RpcError, match="INVALID_ARGUMENT") as caught:
        SizingServiceStub(channel).Recommend(make())

    error: Any = caught.value
    sent = sum(32 + len(key) + len(value) * 4 // 3 for key, value in error.trailing_metadata())
    assert sent + len(quote(error.details(), safe=string.printable)) < TRAILER_BYTES
    assert details_of(error)["BadRequest"].field_violations


def test_beyond_what_an_error_can_hold_the_rest_is_counted(client: SizingClient) -> None:
    wrong = told(client, _thousand_providers())

    named = len(wrong) - 1
    assert named > 10
    assert f"{1000 - named} wrong fields from here on" in wrong[f"constraints.providers.{named}"]


def test_a_message_of_10_mib_is_refused_and_the_server_lives_on(channel: grpc.Channel) -> None:
    stub = SizingServiceStub(channel)
    request = example("llama3-8b-sft")
    request.workload.name = "x" * 10 * 2**20

    with pytest.raises(grpc.RpcError, match="RESOURCE_EXHAUSTED"):
        stub.Recommend(request)

    assert stub.Recommend(example("llama3-8b-sft")).recommendations


def test_bytes_that_are_no_message_are_refused_and_the_server_lives_on(
    channel: grpc.Channel,
) -> None:
    with pytest.raises(grpc.RpcError, match="INVALID_ARGUMENT") as caught:
        raw(channel)(b"\xff" * 100)
    assert details_of(caught.value)["ErrorInfo"].reason == "UNREADABLE_REQUEST"

    assert SizingServiceStub(channel).Recommend(example("llama3-8b-sft")).recommendations


def test_unknown_fields_of_a_newer_client_are_passed_over(channel: grpc.Channel) -> None:
    request = example("llama3-8b-sft")
    # Field 2000 of type bytes: 2000 << 3 | 2 as a varint, a length, and content.
    newer = request.SerializeToString() + b"\x82\x7d\x03new"

    answer = raw(channel)(newer)

    assert sizing_service_pb2.RecommendResponse.FromString(answer).recommendations


def test_a_workload_without_a_run_says_which_runs_there_are(client: SizingClient) -> None:
    bare = workload_pb2.Workload(model=example("llama3-8b-sft").workload.model)

    wrong = told(client, sizing_service_pb2.RecommendRequest(workload=bare))

    assert wrong.keys() == {"workload.training"}
    assert wrong["workload.training"].startswith("is required: 'training', 'inference'")
