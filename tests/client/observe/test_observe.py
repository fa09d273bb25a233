"""`sizewright observe`: real commands, what they took, and what is said of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

MIB = 2**20
HELD = 80 * MIB
#: An interpreter and what it imports before it holds anything.
INTERPRETER = 20 * MIB
HOLDS = f"import time; held = bytearray({HELD}); time.sleep(0.6)"


def observed(
    *arguments: str, command: list[str], status: int = 0
) -> subprocess.CompletedProcess[str]:
    environment = {n: v for n, v in os.environ.items() if n not in ("COLUMNS", "FORCE_COLOR")}
    done = subprocess.run(
        [sys.executable, "-m", "sizewright_client", "observe", *arguments, "--", *command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment | {"NO_COLOR": "1"},
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


def document(*arguments: str, command: list[str], status: int = 0) -> dict[str, Any]:
    done = observed("-o", "json", *arguments, command=command, status=status)
    made: dict[str, Any] = json.loads(done.stdout)
    return made


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_the_peak_is_what_the_command_held() -> None:
    seen = document(command=python(HOLDS))

    assert HELD <= seen["peak_bytes"] <= HELD + INTERPRETER
    assert seen["exit_status"] == 0
    assert seen["gpu_peak_bytes"] is None


def test_a_peak_between_two_looks_is_still_seen() -> None:
    """The kernel keeps a high-water mark of its own."""
    seen = document("--interval", "30", command=python(f"bytearray({HELD})"))

    assert seen["peak_bytes"] >= HELD
    assert seen["reading"] == "rss high-water mark"


def test_processes_of_the_tree_count_together_and_shared_pages_once() -> None:
    code = f"""
import multiprocessing, time
held = bytearray({HELD})
def wait(): time.sleep(1.0)
if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=wait) for _ in range(2)]
    for child in children: child.start()
    for child in children: child.join()
"""
    seen = document("--interval", "0.05", command=python(code))

    assert seen["peak_process_count"] == 3
    assert HELD <= seen["peak_bytes"] <= HELD + 4 * INTERPRETER
    assert seen["reading"] == "pss of the tree"


def test_processes_with_memory_of_their_own_add_up() -> None:
    code = f"""
import subprocess, sys
child = [sys.executable, "-c", {HOLDS!r}]
running = [subprocess.Popen(child) for _ in range(2)]
for one in running: one.wait()
"""
    seen = document("--interval", "0.05", command=python(code))

    assert seen["peak_bytes"] >= 2 * HELD
    assert seen["largest_process_bytes"] < 2 * HELD


def test_the_exit_code_is_the_commands_own() -> None:
    assert document(command=python("raise SystemExit(7)"), status=7)["exit_status"] == 7


def test_a_command_that_a_signal_ended_exits_as_a_shell_says_it() -> None:
    killed = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"

    assert document(command=python(killed), status=137)["exit_status"] == -9


def test_a_command_that_cannot_start_is_named_and_exits_with_127() -> None:
    done = observed(command=["no-such-command-here"], status=127)

    assert "no-such-command-here: No such file or directory" in done.stderr
    assert done.stdout == ""


def test_the_commands_output_stays_apart_from_the_json() -> None:
    done = observed("-o", "json", command=python("print('from the command')"))

    assert "from the command" in done.stderr
    json.loads(done.stdout)


def test_the_page_has_the_peak_a_plot_and_no_colour_in_a_pipe() -> None:
    done = observed(command=python(HOLDS))

    lines = done.stdout.splitlines()
    assert any(line.strip().startswith("peak") and "iB" in line for line in lines)
    assert "Memory over time" in lines
    assert "\x1b" not in done.stdout
    assert all(len(line) <= 80 for line in lines)


def test_memory_that_grows_steadily_is_called_a_leak() -> None:
    code = f"""
import time
held = []
for _ in range(112):
    held.append(bytearray({MIB}))
    time.sleep(0.1)
"""
    seen = document("--interval", "0.1", command=python(code))

    assert seen["growth"]["steady"] is True
    assert seen["growth"]["bytes_per_minute"] > 100 * MIB


def test_a_run_too_short_for_a_trend_has_none() -> None:
    assert document(command=python(HOLDS))["growth"] is None


REQUEST = """
framework: scikit-learn
model: {estimator: {class_name: SGDClassifier}}
fit: {}
dataset: {rows: 1000, columns: 5}
"""


def test_an_estimate_stands_beside_what_was_seen(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(REQUEST, encoding="utf-8")
    held = python(f"held = bytearray({190 * MIB}); import time; time.sleep(0.3)")

    seen = document("--estimate", str(file), command=held)["comparison"]

    assert [one["pool"] for one in seen] == ["host"]
    assert seen[0]["verdict"] == "within"
    assert seen[0]["error"] == pytest.approx(
        seen[0]["best_bytes"] / seen[0]["observed_bytes"] - 1, abs=1e-3
    )


def test_an_estimate_may_be_the_json_of_an_earlier_answer(tmp_path: Path) -> None:
    job, answer = tmp_path / "job.yaml", tmp_path / "answer.json"
    job.write_text(REQUEST, encoding="utf-8")
    written = subprocess.run(
        [sys.executable, "-m", "sizewright_client", "estimate", str(job), "-o", "json"],
        capture_output=True,
        text=True,
        check=True,
    )
    answer.write_text(written.stdout, encoding="utf-8")

    seen = document("--estimate", str(answer), command=python("pass"))["comparison"]

    assert seen[0]["verdict"] == "below"


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "cannot be read"), ('{"estimate": {}}', "holds no estimate"), ('{"estimate": 1', "is")],
)
def test_a_wrong_estimate_is_refused_before_the_command_runs(
    text: str | None, words: str, tmp_path: Path
) -> None:
    file, touched = tmp_path / "estimate.json", tmp_path / "ran"
    if text is not None:
        file.write_text(text, encoding="utf-8")

    done = observed("--estimate", str(file), command=["touch", str(touched)], status=2)

    assert words in done.stderr
    assert not touched.exists()


def test_the_report_is_also_written_to_a_file(tmp_path: Path) -> None:
    file = tmp_path / "report.json"

    observed("--report", str(file), command=python(HOLDS))

    assert json.loads(file.read_text(encoding="utf-8"))["peak_bytes"] >= HELD
