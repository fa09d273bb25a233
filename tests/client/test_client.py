"""The typed client against a real server on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import trustme

import sample_answers
import sizewright_client
from answering_server import TOKEN, answering_server
from sizewright.v1 import catalog_service_pb2, sizing_service_pb2, workload_pb2
from sizewright_client import Retries, SizingClient, Tls
from sizewright_client.errors import (
    AccessError,
    CatalogError,
    DeadlineError,
    InvalidRequestError,
    ServerError,
    SizingError,
    UnavailableError,
    UnknownNameError,
    Violation,
    error_of_status,
)


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    with answering_server() as running:
        yield running


@pytest.fixture
def client(target: str) -> Iterator[SizingClient]:
    with SizingClient.connect(target, token=TOKEN) as connected:
        yield connected


def about(name: str) -> sizing_service_pb2.EstimateRequest:
    return sizing_service_pb2.EstimateRequest(workload=workload_pb2.Workload(name=name))


def test_an_answer_comes_back_as_its_message(client: SizingClient) -> None:
    assert client.estimate(about("job")).estimate == sample_answers.memory_estimate()


def test_an_error_carries_its_reason_and_every_violation(client: SizingClient) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        client.estimate(about("INVALID_ARGUMENT"))

    assert caught.value.code == "INVALID_ARGUMENT"
    assert caught.value.reason == "TOLD_TO"
    assert caught.value.metadata == {"model": "x"}
    assert caught.value.violations == (
        Violation("workload.training.micro_batch", "must be at least 1"),
        Violation("workload.training.precision", "'fp31' is unknown; did you mean fp32?"),
    )


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("NOT_FOUND", UnknownNameError),
        ("PERMISSION_DENIED", AccessError),
        ("RESOURCE_EXHAUSTED", UnavailableError),
        ("FAILED_PRECONDITION", CatalogError),
        ("UNIMPLEMENTED", ServerError),
    ],
)
def test_each_status_has_its_exception(
    code: str, kind: type[SizingError], client: SizingClient
) -> None:
    with pytest.raises(kind, match="as told"):
        client.estimate(about(code))


def test_the_request_of_another_call_is_named_and_not_sent(client: SizingClient) -> None:
    wrong: Any = sizing_service_pb2.RecommendRequest()

    for asked in (client, SizingClient.embedded()):
        with pytest.raises(TypeError, match="EstimateRequest, not RecommendRequest"):
            asked.estimate(wrong)
        with pytest.raises(TypeError, match="CheckFitRequest, not RecommendRequest"):
            asked.check_fit(wrong)
        with pytest.raises(TypeError, match="BatchRecommendRequest, not RecommendRequest"):
            asked.batch_recommend(wrong)
        with pytest.raises(TypeError, match="RecommendRequest, not Workload"):
            asked.recommend(wrong.workload)


def test_a_call_that_takes_too_long_ends_at_its_own_deadline(client: SizingClient) -> None:
    with pytest.raises(DeadlineError):
        client.estimate(about("slow"), timeout_seconds=0.1)


def test_a_server_that_is_away_for_a_moment_is_tried_again(target: str) -> None:
    once = Retries(attempts=1)
    with (
        SizingClient.connect(target, token=TOKEN, retries=once) as client,
        pytest.raises(UnavailableError, match="as told"),
    ):
        client.estimate(about("UNAVAILABLE"))
    with SizingClient.connect(target, token=TOKEN) as client:
        assert client.estimate(about("twice")).HasField("estimate")


def test_a_call_over_tls_trusts_the_certificates_it_was_given() -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    credentials = grpc.ssl_server_credentials(
        [(certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes())]
    )
    roots = authority.cert_pem.bytes()
    stranger = trustme.CA().cert_pem.bytes()
    with answering_server(credentials) as secure:
        with SizingClient.connect(secure, token=TOKEN, tls=Tls(roots)) as client:
            assert client.estimate(about("job")).HasField("estimate")
        with (
            SizingClient.connect(secure, token=TOKEN, tls=Tls(stranger)) as client,
            pytest.raises(UnavailableError),
        ):
            client.estimate(about("job"))


def test_a_list_goes_on_over_its_pages(client: SizingClient) -> None:
    request = catalog_service_pb2.ListInstanceTypesRequest(page_size=2)

    types = [kind.type for kind in client.instance_types(request)]

    assert types == [offer.instance_type.type for offer in sample_answers.offers()]
    assert request.page_token == ""


def test_details_that_cannot_be_read_do_not_hide_the_error() -> None:
    error = error_of_status("INTERNAL", "broken", b"\xff\xff\xff")

    assert isinstance(error, ServerError)
    assert (error.message, error.reason) == ("broken", "UNREADABLE_ERROR_DETAILS")


def test_every_name_the_package_offers_is_there() -> None:
    for name in sizewright_client.__all__:
        assert getattr(sizewright_client, name).__name__ == name
    with pytest.raises(AttributeError, match="nothing_such"):
        sizewright_client.nothing_such  # noqa: B018
