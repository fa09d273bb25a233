"""A foreign script: it knows an address, asks for the contract, and has nothing generated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from running_server import details_of, running, target_of

Ask = Callable[[str, dict[str, Any]], dict[str, Any]]

WORKLOAD: dict[str, Any] = {
    "model": {"preset": "meta-llama/Meta-Llama-3-8B"},
    "training": {
        "precision": "bf16-mixed",
        "optimizer": {"name": "adamw"},
        "micro_batch": 1,
        "seq_len": 4096,
        "activation_checkpointing": "ACTIVATION_CHECKPOINTING_FULL",
    },
}


@pytest.fixture
def ask(channel: grpc.Channel) -> Ask:
    """Calls "Service/Method" with JSON and gives JSON back, as any tool with reflection does."""
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))

    def call(name: str, request: dict[str, Any]) -> dict[str, Any]:
        service, method_name = name.split("/")
        method = pool.FindServiceByName(service).FindMethodByName(method_name)
        message = json_format.ParseDict(request, GetMessageClass(method.input_type)())
        invoke: grpc.UnaryUnaryMultiCallable[Message, Message] = channel.unary_unary(
            f"/{name}",
            request_serializer=lambda value: value.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        answer = json_format.MessageToDict(invoke(message), preserving_proto_field_name=True)
        return dict(answer)

    return call


def test_a_server_tells_its_services_and_every_method(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    pool = DescriptorPool(database)

    services = list(database.get_services())

    assert set(services) == {
        "sizewright.v1.SizingService",
        "sizewright.v1.CatalogService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    sizing = pool.FindServiceByName("sizewright.v1.SizingService")
    assert [method.name for method in sizing.methods][:4] == [
        "Estimate",
        "Recommend",
        "BatchRecommend",
        "CheckFit",
    ]


def test_estimate_by_reflection(ask: Ask) -> None:
    answer = ask("sizewright.v1.SizingService/Estimate", {"workload": WORKLOAD, "gpus": 8})

    # 64-bit integers are strings in proto3 JSON.
    assert answer["estimate"]["parameter_count"] == "8030261248"
    assert [pool["pool"] for pool in answer["estimate"]["pools"]] == ["POOL_GPU", "POOL_HOST"]


def test_recommend_and_batch_by_reflection_agree(ask: Ask) -> None:
    request = {"workload": WORKLOAD, "constraints": {"providers": ["aws"]}, "max_results": 2}

    one = ask("sizewright.v1.SizingService/Recommend", request)
    batch = ask("sizewright.v1.SizingService/BatchRecommend", {"requests": [request]})

    assert [plan["rank"] for plan in one["recommendations"]] == [1, 2]
    assert batch["results"] == [{"response": one}]


def test_check_fit_by_reflection(ask: Ask) -> None:
    name = "providers/aws/instanceTypes/p5.48xlarge"

    answer = ask(
        "sizewright.v1.SizingService/CheckFit", {"workload": WORKLOAD, "instance_type": name}
    )

    assert answer["verdict"] == "VERDICT_FITS"


def test_the_catalog_by_reflection(ask: Ask) -> None:
    service = "sizewright.v1.CatalogService"
    status = ask(f"{service}/GetCatalogStatus", {})
    types = ask(f"{service}/ListInstanceTypes", {"provider": "lambda"})["instance_types"]
    found = ask(f"{service}/GetInstanceType", {"name": types[0]["name"]})["instance_type"]
    offers = ask(f"{service}/ListOffers", {"provider": "lambda", "type": found["type"]})["offers"]

    counts = {each["provider"]: each for each in status["providers"]}
    assert len(types) == int(counts["lambda"]["instance_type_count"])
    assert found == types[0]
    assert all(offer["instance_type"] == found for offer in offers)


def test_every_wrong_field_reaches_a_foreign_script(ask: Ask) -> None:
    training = WORKLOAD["training"] | {"precision": "fp31", "micro_batch": -3}
    request = {"workload": WORKLOAD | {"training": training}}

    with pytest.raises(grpc.RpcError) as caught:
        ask("sizewright.v1.SizingService/Recommend", request)

    details = details_of(caught.value)
    assert details["ErrorInfo"].domain == "sizewright"
    assert {violation.field for violation in details["BadRequest"].field_violations} == {
        "workload.training.precision",
        "workload.training.micro_batch",
    }


@pytest.mark.parametrize("name", ["RefreshEverything", "estimate", "Estimate2"])
def test_a_method_that_is_not_there_is_unimplemented(name: str, channel: grpc.Channel) -> None:
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
        f"/sizewright.v1.SizingService/{name}"
    )
    with pytest.raises(grpc.RpcError, match="UNIMPLEMENTED"):
        call(b"")


def test_reflection_can_be_turned_off() -> None:
    with (
        running(reflection=False) as server,
        grpc.insecure_channel(target_of(server)) as channel,
        pytest.raises(grpc.RpcError, match="UNIMPLEMENTED"),
    ):
        list(ProtoReflectionDescriptorDatabase(channel).get_services())
