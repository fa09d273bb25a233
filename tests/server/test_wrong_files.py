"""Wrong files through the command, embedded: the documented exit code, a message, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from running_server import EXAMPLES

GOOD = (EXAMPLES / "llama3-8b-sft.yaml").read_text(encoding="utf-8")


def sizewright(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, with no server and no settings."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("SIZEWRIGHT")}
    done = subprocess.run(
        [sys.executable, "-m", "sizewright_client", *arguments],
        capture_output=True,
        text=True,
        env=plain,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done


def bomb(levels: int = 30) -> str:
    """Anchors that would become 10 ** levels scalars."""
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join([*lines, f"name: *a{levels - 1}"])


@pytest.mark.parametrize(
    ("text", "code", "hints"),
    [
        ("", 4, ["empty"]),
        (bomb(), 4, ["anchor"]),
        ("[1, 2]", 4, ["mapping"]),
        ("workload: {name: [}", 4, ["line 1"]),
        (GOOD.replace("micro_batch", "micro_bacth"), 4, ["micro_bacth", "micro_batch"]),
        (GOOD.replace("constraints", "contraints"), 4, ["contraints", "constraints"]),
        (GOOD.replace("micro_batch: 1", "micro_batch: -1"), 4, ["micro_batch: must be at least 1"]),
        (GOOD.replace("rows: 52000", "rows: 1e30"), 4, ["workload.dataset.rows"]),
        (GOOD.replace("Meta-Llama-3-8B}", "Meta-Llama-3-9B}"), 4, ["near: meta-llama/"]),
        (GOOD.replace("bf16-mixed", "bf16-mxed"), 4, ["did you mean 'bf16-mixed'?"]),
        (GOOD.replace("[aws, gcp", "[amazon, gcp"), 4, ["constraints.providers.0: 'amazon'"]),
        (
            GOOD.replace("max_nodes: 2", "max_nodes: 2\n  regions: [us-eastt-1]"),
            4,
            ["constraints.regions.0", "did you mean 'us-east-1'?"],
        ),
    ],
    ids=[
        "empty",
        "anchors that would blow up",
        "a list",
        "no YAML",
        "a misspelt field",
        "a misspelt section",
        "a negative batch",
        "1e30 rows",
        "an unknown model",
        "an unknown dtype",
        "an unknown provider",
        "an unknown region",
    ],
)
def test_a_wrong_file_exits_as_documented_and_says_what_would_be_right(
    text: str, code: int, hints: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(text, encoding="utf-8")

    done = sizewright("recommend", str(file), "--no-local")

    assert done.returncode == code
    assert done.stdout == ""
    assert all(line.startswith("sizewright: ") for line in done.stderr.splitlines())
    for hint in hints:
        assert hint in done.stderr


def test_a_missing_file_is_a_matter_of_usage(tmp_path: Path) -> None:
    done = sizewright("recommend", str(tmp_path / "gone.yaml"))

    assert done.returncode == 2
    assert "gone.yaml: no such file" in done.stderr


def test_every_wrong_field_of_a_file_has_its_line(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    wrong = GOOD.replace("micro_batch: 1", "micro_batch: -1").replace("bf16-mixed", "fp31")
    file.write_text(wrong.replace("aws", "awz"), encoding="utf-8")

    lines = sizewright("recommend", str(file), "--no-local").stderr.splitlines()

    assert [line.split(": ")[1] for line in lines] == [
        "workload.training.precision",
        "workload.training.micro_batch",
        "constraints.providers.0",
    ]


def test_nothing_fits_exits_3_with_the_nearest_miss_on_standard_output(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(GOOD.replace("max_nodes: 2", "devices: [T4]"), encoding="utf-8")

    done = sizewright("recommend", str(file), "--no-local")

    assert done.returncode == 3
    assert "T4" in done.stdout
