"""The command as a script sees it: exit codes, what is on which stream, never a traceback."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from answering_server import STUCK, TOKEN, answering_server


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with answering_server() as target:
        yield target


def run(
    *arguments: str, stdin: str | bytes = "", environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SIZEWRIGHT_") and name not in ("COLUMNS", "NO_COLOR", "FORCE_COLOR")
    }
    done = subprocess.run(
        [sys.executable, "-m", "sizewright_client", *arguments],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        env=inherited | {"SIZEWRIGHT_TOKEN": TOKEN, "PYTHONUTF8": "1"} | (environment or {}),
        timeout=60,
        check=False,
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert "Traceback" not in err
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


def ask(command: str, name: str, server: str, *more: str) -> subprocess.CompletedProcess[str]:
    return run(command, "-", "--server", server, *more, stdin=f"name: {name}\n")


@pytest.mark.parametrize(
    ("command", "name", "code"),
    [
        ("recommend", "job", 0),
        ("recommend", "no", 3),
        ("check", "job", 0),
        ("check", "tight", 0),
        ("check", "no", 3),
        ("estimate", "INVALID_ARGUMENT", 4),
        ("estimate", "NOT_FOUND", 4),
        ("estimate", "RESOURCE_EXHAUSTED", 5),
        ("estimate", "PERMISSION_DENIED", 6),
        ("estimate", "FAILED_PRECONDITION", 7),
        ("estimate", "INTERNAL", 1),
    ],
)
def test_the_exit_code_says_what_happened(command: str, name: str, code: int, server: str) -> None:
    on = ("--on", "aws/p5.48xlarge") if command == "check" else ()
    local = ("--no-local",) if command == "recommend" else ()
    done = ask(command, name, server, *on, *local)

    assert done.returncode == code
    assert bool(done.stdout) is (code in (0, 3))
    assert bool(done.stderr) is (code not in (0, 3))


def test_every_wrong_field_that_the_server_names_is_on_stderr(server: str) -> None:
    done = ask("estimate", "INVALID_ARGUMENT", server)

    assert done.stderr.splitlines() == [
        "sizewright: workload.training.micro_batch: must be at least 1",
        "sizewright: workload.training.precision: 'fp31' is unknown; did you mean fp32?",
    ]


def test_a_wrong_token_exits_6_and_a_token_file_comes_before_the_environment(
    server: str, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")
    arguments = ("estimate", "-", "--server", server)
    wrong = {"SIZEWRIGHT_TOKEN": "wrong"}

    assert run(*arguments, stdin="name: job", environment=wrong).returncode == 6
    with_file = run(*arguments, "--token-file", str(token), stdin="name: job", environment=wrong)
    assert with_file.returncode == 0


def test_an_answer_that_is_late_or_a_server_that_is_away_exits_5(server: str) -> None:
    late = ask("estimate", "slow", server, "--timeout", "0.2")
    away = ask("estimate", "job", "127.0.0.1:1")

    assert (late.returncode, away.returncode) == (5, 5)
    assert "deadline exceeded: no answer in time; --timeout waits longer" in late.stderr
    assert "unavailable" in away.stderr


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("estimate",), "Missing argument"),
        (("estimate", "gone.yaml"), "gone.yaml: no such file"),
        (("estimate", "."), "is a directory"),
        (("estimate", "-", "--colour"), "No such option"),
        (("recommend", "-", "-o", "xml"), "xml"),
        (("recommend", "-", "--purchase", "spott"), "did you mean 'spot'"),
        (("check", "-", "--on", "p5"), "aws/p5.48xlarge"),
        (("estimate", "-", "--tls"), "need --server"),
        (("estimate", "-", "--server", "x:1", "--token-file", "gone"), "gone: No such file"),
        (("catalog", "list", "--region", "x"), "--offers"),
        (("recomend",), "No such command"),
    ],
)
def test_wrong_usage_exits_2_and_says_what_would_be_right(
    arguments: tuple[str, ...], hint: str
) -> None:
    done = run(*arguments, stdin="name: job\n")

    assert done.returncode == 2
    assert hint in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (b"", "is empty"),
        (b"modle: {preset: x}\nname: a\n", "line 1: workload.modle: unknown field; did you mean"),
        (b"dataset: {rows: 1e30}\n", "out of range"),
        (b"a: &a [x]\nb: [*a, *a]\n", "anchors"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"#" * 1_048_577, "larger than 1024 KiB"),
    ],
)
def test_a_wrong_request_exits_4_and_names_the_field(content: bytes, hint: str) -> None:
    done = run("estimate", "-", stdin=content)

    assert done.returncode == 4
    assert hint in done.stderr
    assert done.stdout == ""


def test_json_and_yaml_are_the_same_tree_and_csv_has_a_row_per_plan(server: str) -> None:
    def answer(form: str) -> str:
        return ask("recommend", "job", server, "--no-local", "-o", form).stdout

    tree = json.loads(answer("json"))
    rows = list(csv.DictReader(io.StringIO(answer("csv"))))

    assert yaml.safe_load(answer("yaml")) == tree
    assert tree["consideredOfferCount"] == "97123"
    assert [(row["rank"], row["machine"], row["cost_per_hour_usd"]) for row in rows] == [
        ("1", "a2-ultragpu-4g", "5.1234"),
        ("2", "p4de.24xlarge", "9.87"),
        ("3", "Standard_ND96isr_MI300X_v5_Extended", "122.5"),
    ]
    assert rows[1]["verdict"] == "tight"
    assert rows[2]["price_age_days"] == "208"


def test_an_estimate_as_csv_has_a_row_per_part(server: str) -> None:
    rows = list(csv.DictReader(io.StringIO(ask("estimate", "job", server, "-o", "csv").stdout)))

    assert [row["part"] for row in rows if row["phase"] == "optimizer-step"] == [
        "weights",
        "optimizer-state",
        "gradients",
    ]


def test_a_table_in_a_pipe_has_no_escape_codes_and_fits_80_columns(server: str) -> None:
    text = ask("recommend", "job", server, "--no-local", "--explain").stdout

    assert "\x1b" not in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_a_terminal_without_unicode_gets_plain_signs(server: str) -> None:
    environment = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = run("estimate", "-", "--server", server, stdin="name: job\n", environment=environment)

    assert done.stdout.isascii()
    assert "####" in done.stdout


def test_a_reader_that_goes_away_is_no_failure(server: str) -> None:
    command = [sys.executable, "-m", "sizewright_client", "recommend", "-", "--no-local"]
    with subprocess.Popen(
        [*command, "--server", server],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"SIZEWRIGHT_TOKEN": TOKEN},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.write(b"name: job\n")
        process.stdin.close()
        complaint = process.stderr.read()

    assert (process.returncode, complaint) == (0, b"")


@pytest.mark.parametrize(
    "command",
    ["estimate", "recommend", "check", "catalog list", "catalog show", "local", "presets"],
)
def test_every_help_has_examples_and_the_exit_codes(command: str) -> None:
    done = run(*command.split(), "--help")

    assert done.returncode == 0
    assert f"sizewright {command.split()[0]}" in done.stdout.partition("Examples:")[2]
    assert "3    nothing fits" in done.stdout


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Children take SIGINT even where this runs in the background of a shell, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_exits_130_without_a_word_too_many(server: str) -> None:
    command = [sys.executable, "-m", "sizewright_client", "estimate", "-", "--server", server]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"SIZEWRIGHT_TOKEN": TOKEN},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(b"name: stuck\n")
        process.stdin.close()
        assert STUCK.wait(timeout=30)
        process.send_signal(signal.SIGINT)
        answer, complaint = process.stdout.read(), process.stderr.read()

    assert process.returncode == 130
    assert (answer, complaint) == (b"", b"sizewright: interrupted\n")
