"""The commands that keep a catalog fresh, embedded and without a server, as scripts see them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stand_in_source import Source, serving, status

STAND_INS = Path(__file__).parents[1] / "stand_ins"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def run(source: Source, tmp_path: Path) -> Iterator[Run]:
    """Runs the command over a home of its own and the source."""
    with serving(source) as url:
        plain = {k: v for k, v in os.environ.items() if not k.startswith("SIZEWRIGHT_")}
        environment = plain | {
            "SIZEWRIGHT_HOME": str(tmp_path / "home"),
            "SIZEWRIGHT_EXTRA_PROVIDERS": "standin=stand_in_provider:StandIn",
            "SIZEWRIGHT_STANDIN_ENDPOINT_URL": url,
            "PYTHONPATH": str(STAND_INS),
            "COLUMNS": "80",
        }

        def run(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-m", "sizewright_client", "catalog", *arguments],
                capture_output=True, text=True, env=environment, timeout=60,
            )  # fmt: skip

        yield run


def test_what_was_refreshed_is_listed_compared_and_told_of(run: Run, source: Source) -> None:
    first = run("refresh", "standin")
    source.price_factor = 1.5
    second = run("refresh", "standin", "-o", "json")
    listed = run("list", "--offers", "--type", "g.h100.8", "-o", "csv")
    diff = run("diff", "-o", "json")
    history = run("history", "standin/g.h100.8", "--region", "east-1", "--purchase", "spot")
    versions = run("versions")
    cells = run("history", "standin/g.h100.8", "--region", "east-1", "--limit", "1", "-o", "csv")

    assert (first.returncode, second.returncode) == (0, 0)
    assert "144 offers of 24 types\n  144 new\n" in first.stdout
    assert "standin: fetch 3 of 3, 144 offers" in first.stderr
    events = [json.loads(line) for line in second.stdout.splitlines()]
    assert events[-1]["stage"] == "done"
    assert events[-1]["changes"]["dearerCount"] == "144"
    assert "g.h100.8" in listed.stdout
    assert json.loads(diff.stdout)["after"] == events[-1]["version"]
    assert "20.74  31.10  +50 %  g.h100.8 east-1 spot" in history.stdout
    row = dict(zip(*(line.split(",") for line in cells.stdout.splitlines()), strict=True))
    assert row["change_time"].startswith("20")
    assert row["change_time"].endswith("Z")
    assert (row["before_nanos"], row["kind"]) != ("", "1")
    assert versions.stdout.count("refresh of standin") == 2
    for page in (first, history, versions):
        assert all(len(line) <= 80 for line in page.stdout.splitlines())


def test_the_status_says_what_fails_and_when_it_is_tried_again(run: Run, source: Source) -> None:
    run("refresh", "standin")
    source.instead = status(503)
    failed = run("refresh", "standin")
    told = run("status")

    assert failed.returncode == 7
    assert "standin failed: HTTP 503" in failed.stdout
    assert "the last good version is served as before" in failed.stdout
    assert "standin fails: HTTP 503\n  1 in a row, next try 20" in told.stdout
    assert all(len(line) <= 80 for line in told.stdout.splitlines())


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("refresh", "standinn"), 4, "did you mean 'standin'"),
        (("refresh",), 4, "names none"),
        (("history", "nowhere"), 2, "nowhere"),
        (("history", "standin/c.1", "--purchase", "owned"), 2, "not on-demand, spot or committed"),
        (("diff", "zz"), 4, "no version that is kept begins with 'zz'"),
        (("import", "/nowhere.npz"), 2, "/nowhere.npz"),
        (("export", "/nowhere/x.npz"), 2, "cannot be written"),
    ],
)
def test_wrong_commands_say_what_would_be_right(
    run: Run, arguments: tuple[str, ...], code: int, words: str
) -> None:
    done = run(*arguments)

    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_version_goes_from_one_home_to_another(run: Run, tmp_path: Path) -> None:
    run("refresh", "standin")
    exported = run("export", str(tmp_path / "c.npz"))
    imported = run("import", str(tmp_path / "c.npz"))

    assert exported.stdout == imported.stdout
    assert len(exported.stdout.strip()) == 64
