"""The engine in the process and the one behind a server give the same bytes, errors too."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from running_server import EXAMPLES, long_batch
from sizewright.v1 import sizing_service_pb2
from sizewright_client import SizingClient
from sizewright_client.cli.app import app
from sizewright_client.errors import DeadlineError
from sizewright_server import clock

FILES = sorted(str(path) for path in EXAMPLES.glob("*.yaml"))
WRONG = """
workload:
  framework: pytorhc
  model: {preset: meta-llama/Meta-Llama-3-8}
  training: {precision: fp31, optimizer: adamv, micro_batch: -1, seq_len: 0}
constraints: {providers: [awz], headroom: 0.5}
"""


@pytest.fixture(autouse=True)
def _one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ages are told to the second, and two commands are never asked in the same one for sure.

    The server of these tests runs in this process, so both are told the same moment.
    """
    moment = time.time()
    monkeypatch.setattr(clock, "now", lambda: moment)


def both(target: str, *arguments: str) -> tuple[str, str, int]:
    """Output, messages and exit code of a command, the same with and without a server."""
    runner = CliRunner(env={"SIZEWRIGHT_SERVER": None, "SIZEWRIGHT_TOKEN": None})
    here = runner.invoke(app, arguments)
    there = runner.invoke(app, [*arguments, "--server", target])
    assert here.stdout_bytes == there.stdout_bytes
    assert here.stderr_bytes == there.stderr_bytes
    assert here.exit_code == there.exit_code
    return here.stdout, here.stderr, here.exit_code


@pytest.mark.parametrize("file", FILES, ids=[Path(file).stem for file in FILES])
@pytest.mark.parametrize("form", ["json", "yaml", "csv", "table"])
def test_every_example_is_answered_alike_in_every_form(file: str, form: str, target: str) -> None:
    for command in (
        ("estimate", file),
        ("estimate", file, "--gpus", "8", "--device", "H100-SXM", "--explain"),
        ("recommend", file, "--no-local"),
        ("recommend", file, "--no-local", "--top", "3", "--explain", "--max-nodes", "4"),
        ("check", file, "--on", "aws/p5.48xlarge"),
        ("check", file, "--on", "aws/g4dn.xlarge", "--nodes", "2"),
    ):
        stdout, _, code = both(target, *command, "-o", form)
        # What an example cannot be asked, such as 8 GPUs for a layout on one, is refused.
        assert stdout or code == 4
        assert code in (0, 3, 4)


@pytest.mark.parametrize(
    "command", [("estimate",), ("recommend", "--no-local"), ("check", "--on", "aws/p5.48xlarge")]
)
def test_errors_are_alike(command: tuple[str, ...], target: str, tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(WRONG, encoding="utf-8")

    stdout, stderr, code = both(target, *command, str(file), "-o", "json")

    assert (stdout, code) == ("", 4)
    assert stderr.count("\n") >= 6


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("catalog", "status"), 0),
        (("catalog", "list", "--provider", "aws", "--device", "H100-SXM"), 0),
        (("catalog", "list", "--offers", "--type", "p5.48xlarge"), 0),
        (("catalog", "list", "--provider", "awz"), 4),
        (("catalog", "show", "aws/p5.48xlarge"), 0),
        (("catalog", "show", "aws/p5.48xlarg"), 4),
    ],
)
def test_the_catalog_is_read_alike(command: tuple[str, ...], code: int, target: str) -> None:
    assert both(target, *command, "-o", "json")[2] == code


def test_a_batch_is_answered_alike_to_the_byte(client: SizingClient) -> None:
    batch = long_batch(3)
    batch.requests.add().workload.training.micro_batch = -1
    batch.requests.add()

    with SizingClient.embedded() as here:
        mine = here.batch_recommend(batch)

    theirs = client.batch_recommend(batch)
    assert mine.SerializeToString(deterministic=True) == theirs.SerializeToString(
        deterministic=True
    )
    assert [each.WhichOneof("result") for each in mine.results] == 3 * ["response"] + 2 * ["error"]


def test_a_deadline_ends_a_batch_in_the_process_too() -> None:
    with SizingClient.embedded() as here, pytest.raises(DeadlineError):
        here.batch_recommend(long_batch(), timeout_seconds=0.05)


def test_the_embedded_engine_has_no_call_that_the_server_has_not() -> None:
    from sizewright_server.servicer import METHODS

    services = [sizing_service_pb2.DESCRIPTOR.services_by_name["SizingService"]]
    told = {
        f"/{service.full_name}/{method.name}" for service in services for method in service.methods
    }
    assert told <= METHODS.keys()
