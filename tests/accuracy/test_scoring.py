"""The scoring, and how near the estimates are to a slice of the ground truth kept here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.accuracy.__main__ import main
from tests.accuracy.scoring import score

CASES = Path(__file__).parents[1] / "fixtures" / "groundtruth"
KINDS = ("fits", "host", "serving", "trace", "training")


def cases_of(kind: str) -> list[dict[str, Any]]:
    lines = (CASES / f"{kind}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def written(path: Path, cases: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(case) + "\n" for case in cases), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["train", "infer"])
def test_traced_decoders_and_encoders_are_within_3_percent_at_the_median(
    kind: str, tmp_path: Path
) -> None:
    chosen = [case for case in cases_of("trace") if f"/{kind}/" in case["id"]]

    group = score([written(tmp_path / "cases", chosen)])["groups"]["trace/allocated_peak"]

    assert group["n"] >= 15
    assert group["unsupported"] == 0
    assert group["median_abs_error"] <= 0.03
    assert group["p90_abs_error"] <= 0.10


def test_the_truth_is_above_the_high_estimate_in_few_traced_cases() -> None:
    group = score([CASES / "trace.jsonl"])["groups"]["trace/allocated_peak"]

    assert group["share_within_high"] >= 0.96


@pytest.mark.parametrize("kind", KINDS)
def test_every_target_of_every_kind_of_file_is_scored_or_refused_with_a_reason(kind: str) -> None:
    report = score([CASES / f"{kind}.jsonl"])

    targets = [(case["id"], t["metric"]) for case in cases_of(kind) for t in case["targets"]]
    answered = [(row["id"], row["metric"]) for row in report["cases"]]
    refused = [(row["id"], row["metric"]) for row in report["unsupported"]]
    assert sorted(answered + refused) == sorted(targets)
    assert all(row["reason"] for row in report["unsupported"])
    assert all(row["low"] <= row["best"] <= row["high"] for row in report["cases"] if "best" in row)


@pytest.mark.parametrize("kind", KINDS)
def test_a_blind_case_gets_the_same_estimate_as_one_with_its_answer(
    kind: str, tmp_path: Path
) -> None:
    blind = cases_of(kind)
    for case in blind:
        case["source"] = None
        for target in case["targets"]:
            for answer in ("bytes", "count", "value"):
                target.pop(answer, None)

    told = score([CASES / f"{kind}.jsonl"])["cases"]
    untold = score([written(tmp_path / "blind", blind)])["cases"]

    def estimates(rows: list[dict[str, Any]]) -> list[object]:
        return [
            (r["id"], r.get("low"), r.get("best"), r.get("high"), r.get("verdict")) for r in rows
        ]

    assert estimates(untold) == estimates(told)
    assert all(row["error"] is None and row["actual"] is None for row in untold)


def test_the_command_writes_the_report_and_names_a_missing_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report.json"
    files = [str(CASES / f"{kind}.jsonl") for kind in KINDS]
    monkeypatch.setattr("sys.argv", ["accuracy", *files, "--out", str(out)])

    assert main() == 0
    assert json.loads(out.read_text()).keys() == {"groups", "sanity", "cases", "unsupported"}
    assert "trace/allocated_peak: n " in capsys.readouterr().out

    monkeypatch.setattr("sys.argv", ["accuracy", "gone.jsonl", "--out", str(out)])
    assert main() == 2
    assert "no such file: gone.jsonl" in capsys.readouterr().err
