"""One server in this process for every test that only reads from one, and no catalog but ours."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import grpc
import pytest

from running_server import running, target_of
from sizewright_client import SizingClient

# The catalog of whoever runs the tests has no part in them, nor in the processes they start.
os.environ["XDG_DATA_HOME"] = tempfile.mkdtemp(prefix="sizewright-tests-")
os.environ.pop("SIZEWRIGHT_HOME", None)


@pytest.fixture(scope="session")
def target() -> Iterator[str]:
    """A server on loopback with the settings it has by default."""
    with running() as server:
        yield target_of(server)


@pytest.fixture
def client(target: str) -> Iterator[SizingClient]:
    """A typed client of that server."""
    with SizingClient.connect(target) as connected:
        yield connected


@pytest.fixture
def channel(target: str) -> Iterator[grpc.Channel]:
    """A bare channel to that server."""
    with grpc.insecure_channel(target) as opened:
        yield opened
