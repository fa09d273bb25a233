"""Who may call: loopback is open, everything else needs TLS and a token, and health is for all."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import ValidationError

from running_server import (
    EXAMPLES,
    PATIENCE_SECONDS,
    details_of,
    example,
    running,
    server_process,
    target_of,
)
from sizewright.v1 import catalog_service_pb2
from sizewright.v1.catalog_service_pb2_grpc import CatalogServiceStub
from sizewright_client import SizingClient, Tls
from sizewright_client.errors import AccessError, UnavailableError
from sizewright_server.failures import CallFailed
from sizewright_server.settings import ServerSettings
from sizewright_server.tokens import TokenFileError, Tokens, read_tokens

CHANGING = "/sizewright.v1.CatalogService/RefreshCatalog"


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text("old-token\nnew-token\n", encoding="utf-8")
    return path


@pytest.fixture
def guarded(token_file: Path) -> Iterator[str]:
    with running(token_file=token_file) as server:
        yield target_of(server)


@pytest.mark.parametrize("token", ["old-token", "new-token"])
def test_each_token_of_the_file_may_call_so_that_one_can_be_replaced(
    token: str, guarded: str
) -> None:
    with SizingClient.connect(guarded, token=token) as client:
        assert client.recommend(example("llama3-8b-sft")).recommendations


@pytest.mark.parametrize("token", [None, "", "old-toke", "old-token2", "Old-Token"])
def test_no_token_or_a_wrong_one_is_refused_before_the_request_is_read(
    token: str | None, guarded: str
) -> None:
    wrong = example("llama3-8b-sft")
    wrong.workload.training.micro_batch = -1

    with (
        SizingClient.connect(guarded, token=token) as client,
        pytest.raises(AccessError) as caught,
    ):
        client.recommend(wrong)

    assert caught.value.code == "UNAUTHENTICATED"
    assert caught.value.reason == "TOKEN_MISSING_OR_UNKNOWN"
    assert not caught.value.violations


def test_health_needs_no_token(guarded: str) -> None:
    with SizingClient.connect(guarded) as client:
        for service in ("", "sizewright.v1.SizingService", "sizewright.v1.CatalogService"):
            assert client.health(service) == "SERVING"


def test_health_of_a_service_that_is_not_there_is_not_found(guarded: str) -> None:
    with grpc.insecure_channel(guarded) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
            health.Check(health_pb2.HealthCheckRequest(service="x"))


def test_a_method_that_does_not_exist_is_unimplemented(target: str) -> None:
    with grpc.insecure_channel(target) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/sizewright.v1.SizingService/Guess"
        )
        with pytest.raises(grpc.RpcError, match="UNIMPLEMENTED"):
            call(b"")


def test_a_call_that_changes_state_needs_the_admin_token_whenever_there_is_one() -> None:
    both = Tokens(read=(b"reader",), admin=(b"admin",))
    for name, code in (("reader", "PERMISSION_DENIED"), ("x", "UNAUTHENTICATED"), ("admin", "")):
        assert _refusal(both, name, changes_state=True) == code
        if name != "x":
            assert _refusal(both, name, changes_state=False) == ""
    only_admin = Tokens(admin=(b"admin",))
    assert _refusal(only_admin, "", changes_state=True) == "UNAUTHENTICATED"
    assert _refusal(only_admin, "", changes_state=False) == ""
    assert _refusal(Tokens(), "", changes_state=True) == ""


def _refusal(tokens: Tokens, token: str, *, changes_state: bool) -> str:
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    try:
        tokens.check(CHANGING, changes_state, metadata)
    except CallFailed as failed:
        return failed.code
    return ""


def test_a_token_file_that_is_absent_or_empty_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(TokenFileError, match="gone"):
        read_tokens(tmp_path / "gone")
    (tmp_path / "blank").write_text("\n \n", encoding="utf-8")
    with pytest.raises(TokenFileError, match="blank holds no token"):
        read_tokens(tmp_path / "blank")


@pytest.fixture
def pems(tmp_path: Path) -> dict[str, Path]:
    """A server's certificate and key, the authority they are of, and a client's of the same."""
    authority = trustme.CA()
    server, caller = authority.issue_cert("127.0.0.1", "localhost"), authority.issue_cert("me")
    made = {
        "ca": authority.cert_pem,
        "cert": server.cert_chain_pems[0],
        "key": server.private_key_pem,
        "caller_cert": caller.cert_chain_pems[0],
        "caller_key": caller.private_key_pem,
    }
    for name, blob in made.items():
        blob.write_to_path(tmp_path / name)
    return {name: tmp_path / name for name in made}


def test_over_tls_a_caller_that_trusts_the_authority_is_answered(
    pems: dict[str, Path], token_file: Path
) -> None:
    roots = pems["ca"].read_bytes()
    with running(tls_cert=pems["cert"], tls_key=pems["key"], token_file=token_file) as server:
        target = f"localhost:{server.port}"
        with SizingClient.connect(target, token="new-token", tls=Tls(roots)) as client:
            assert client.recommend(example("llama3-8b-sft")).recommendations
        with (
            SizingClient.connect(target, token="new-token") as plain,
            pytest.raises(UnavailableError),
        ):
            plain.recommend(example("llama3-8b-sft"), timeout_seconds=2)


def test_where_clients_must_prove_who_they_are_a_stranger_is_turned_away(
    pems: dict[str, Path],
) -> None:
    roots = pems["ca"].read_bytes()
    known = Tls(roots, pems["caller_key"].read_bytes(), pems["caller_cert"].read_bytes())
    given = {"tls_cert": pems["cert"], "tls_key": pems["key"], "tls_client_ca": pems["ca"]}
    with running(**given) as server:
        target = f"localhost:{server.port}"
        with SizingClient.connect(target, tls=known) as client:
            assert client.health() == "SERVING"
        with (
            SizingClient.connect(target, tls=Tls(roots)) as stranger,
            pytest.raises(UnavailableError),
        ):
            stranger.health(timeout_seconds=2)


def test_the_command_calls_a_server_that_asks_for_everything(
    pems: dict[str, Path], token_file: Path
) -> None:
    given = {"tls_cert": pems["cert"], "tls_key": pems["key"], "tls_client_ca": pems["ca"]}
    with running(**given, token_file=token_file) as server:
        target, ca = f"localhost:{server.port}", str(pems["ca"])
        mine = {
            "SIZEWRIGHT_CLIENT_KEY": str(pems["caller_key"]),
            "SIZEWRIGHT_CLIENT_CERT": str(pems["caller_cert"]),
            "SIZEWRIGHT_TOKEN": "new-token",
        }
        ask = ("recommend", str(EXAMPLES / "llama3-8b-sft.yaml"), "--no-local", "--top", "1")
        served = ("--server", target, "--ca-file", ca, "--timeout", "20")

        assert _command(mine, *ask, *served).returncode == 0
        assert _command(mine | {"SIZEWRIGHT_TOKEN": "x"}, *ask, *served).returncode == 6
        del mine["SIZEWRIGHT_CLIENT_KEY"]
        half = _command(mine, *ask, *served)
        assert half.returncode == 2
        assert "go together" in half.stderr
        del mine["SIZEWRIGHT_CLIENT_CERT"]
        assert _command(mine, *ask, *served[:4], "--timeout", "2").returncode == 5


def _command(given: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    plain = {k: v for k, v in os.environ.items() if not k.startswith("SIZEWRIGHT")}
    return subprocess.run(
        [sys.executable, "-m", "sizewright_client", *arguments],
        capture_output=True,
        text=True,
        env=plain | given,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"listen": "0.0.0.0:50151"}, "reachable by others"),
        ({"listen": "[::]:50151"}, "reachable by others"),
        ({"listen": "example.org:50151"}, "reachable by others"),
        ({"listen": "0.0.0.0:50151", "tls_cert": "c", "tls_key": "k"}, "reachable by others"),
        ({"listen": "0.0.0.0:50151", "token_file": "t"}, "reachable by others"),
        ({"tls_cert": "c"}, "tls_cert and tls_key go together"),
        ({"tls_client_ca": "c"}, "tls_client_ca needs"),
        ({"listen": "unix:/tmp/s", "workers": 2}, "a unix socket takes one"),
        ({"listen": "localhost"}, "is not host:port"),
        ({"listen": "localhost:99999"}, "is not host:port"),
        ({"max_concurrency": 0}, "max_concurrency"),
        ({"default_deadline_seconds": -1}, "default_deadline_seconds"),
    ],
)
def test_settings_that_would_open_the_server_or_break_it_are_refused(
    given: dict[str, object], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        ServerSettings(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "given",
    [
        {"listen": "127.0.0.1:1"},
        {"listen": "localhost:1"},
        {"listen": "[::1]:1"},
        {"listen": "unix:/tmp/s"},
        {"listen": "0.0.0.0:1", "insecure": True},
        {"listen": "0.0.0.0:1", "tls_cert": "c", "tls_key": "k", "token_file": "t"},
    ],
)
def test_loopback_sockets_guarded_addresses_and_a_said_insecure_are_taken(
    given: dict[str, object],
) -> None:
    assert ServerSettings(**given).listen == given["listen"]  # type: ignore[arg-type]


def test_a_server_that_cannot_start_says_why_and_exits_2() -> None:
    for given, words in (
        ({"listen": "0.0.0.0:1"}, "reachable by others"),
        ({"token_file": "/nowhere/tokens"}, "cannot read the token file"),
        ({"catalog": "/nowhere/catalog.npz"}, "is not a readable catalog"),
        ({"workers": "many"}, "workers"),
    ):
        with server_process(**given) as server:
            assert server.exit_code() == 2
            assert words in server.said()
            assert "Traceback" not in server.said()


def test_a_unix_socket_is_served_and_not_taken_over_from_another_server(tmp_path: Path) -> None:
    path = tmp_path / "sizing.sock"
    with running(listen=f"unix:{path}"):
        with grpc.insecure_channel(f"unix:{path}") as channel:
            status = CatalogServiceStub(channel).GetCatalogStatus(
                catalog_service_pb2.GetCatalogStatusRequest()
            )
            assert status.offer_count > 0
        with server_process(listen=f"unix:{path}") as second:
            assert second.exit_code() == 2
            assert "another server listens there" in second.said()


def test_a_tcp_port_that_is_taken_is_refused(target: str) -> None:
    with server_process(listen=target) as second:
        assert second.exit_code() == 2
        assert f"cannot listen on {target}" in second.said()


def test_a_refused_call_still_carries_its_request_id(guarded: str) -> None:
    with grpc.insecure_channel(guarded) as channel, pytest.raises(grpc.RpcError) as caught:
        CatalogServiceStub(channel).GetCatalogStatus(
            catalog_service_pb2.GetCatalogStatusRequest(), metadata=(("x-request-id", "abc-1"),)
        )

    failed: Any = caught.value
    assert dict(failed.trailing_metadata())["x-request-id"] == "abc-1"
    assert details_of(caught.value)["ErrorInfo"].reason == "TOKEN_MISSING_OR_UNKNOWN"
