"""Scoring each source of training runs without what it helped to fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.accuracy.left_out_training import left_out, project, replaced, without

from sizewright_server.estimation.reserved import reserved_shares

CASES = Path(__file__).parents[1] / "fixtures" / "groundtruth" / "sharded.jsonl"


def test_every_number_that_is_left_out_is_one_of_the_data_files() -> None:
    for values in without().values():
        with replaced(values):
            for name, share in values.get("reserved", {}).items():
                assert list(reserved_shares()[name]) == share


def test_the_data_files_numbers_come_back() -> None:
    before = dict(reserved_shares())
    with replaced({"reserved": {"varying-lengths": [0.0, 1.0, 2.0]}}):
        assert reserved_shares()["varying-lengths"] == (0.0, 1.0, 2.0)
    assert reserved_shares() == before


def test_a_number_that_no_file_has_is_an_error() -> None:
    with (
        pytest.raises(KeyError, match="no-such-share"),
        replaced({"reserved": {"no-such-share": 1}}),
    ):
        pass


def test_a_source_is_the_project_it_names_first() -> None:
    assert (
        project("AnswerDotAI/fsdp_qlora benchmarks_03_2024.md@05ed9f2") == "AnswerDotAI/fsdp_qlora"
    )


def test_sharded_runs_hold_without_their_own_source() -> None:
    """Half again as far off at most, and still within the interval."""
    cases = [json.loads(text) for text in CASES.read_text(encoding="utf-8").splitlines()]
    found = left_out(cases)

    assert {"AnswerDotAI/fsdp_qlora", "NVIDIA/Megatron-LM", "pytorch/torchtitan"} <= set(found)
    for fitted, left in found.values():
        for name, group in left.items():
            if "p90_abs_error" in group:
                assert group["p90_abs_error"] <= 1.5 * fitted[name]["p90_abs_error"] + 0.01
                assert group["share_within_high"] == 1
