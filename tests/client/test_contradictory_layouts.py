"""Layouts that contradict the model, the library or the device, as a terminal shows them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

LLAMA, MIXTRAL = "meta-llama/Meta-Llama-3-8B", "mistralai/Mixtral-8x7B-v0.1"


def estimate(
    model: str, parallelism: dict[str, Any], *options: str, **training: Any
) -> subprocess.CompletedProcess[str]:
    run = {
        "precision": "bf16-mixed",
        "optimizer": {"name": "adamw"},
        "micro_batch": 1,
        "seq_len": 4096,
        "parallelism": parallelism,
    }
    job = {"framework": "pytorch", "model": {"preset": model}, "training": run | training}
    return subprocess.run(
        [sys.executable, "-m", "sizewright_client", "estimate", "-", *options],
        input=json.dumps({"workload": job}),
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "200", "NO_COLOR": "1"},
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("model", "parallelism", "training", "words"),
    [
        (LLAMA, {"dp": 1, "tp": 3}, {}, "tp: 3 does not divide 32 heads"),
        (
            LLAMA,
            {"dp": 1, "pp": 64},
            {"gradient_accumulation_steps": 64},
            "pp: 64 stages of 1 chunks exceed 32 layers",
        ),
        (MIXTRAL, {"dp": 16, "ep": 16}, {}, "ep: 16 does not divide 8 experts"),
        (
            LLAMA,
            {"dp": 4, "zero": 3, "pp": 2, "implementation": "deepspeed"},
            {"gradient_accumulation_steps": 4},
            "refuses ZeRO stages 2 and 3",
        ),
        (
            LLAMA,
            {"dp": 1, "zero": 3, "cp": 4},
            {"attention": "eager"},
            "eager attention needs every key on every rank",
        ),
        (
            LLAMA,
            {
                "dp": 1,
                "zero": 1,
                "pp": 4,
                "implementation": "deepspeed",
                "pipeline_schedule": "zero-bubble",
            },
            {"gradient_accumulation_steps": 8},
            "DeepSpeed's pipeline engine runs 1F1B alone",
        ),
    ],
)
def test_a_contradiction_is_refused_with_its_field_and_reason(
    model: str, parallelism: dict[str, Any], training: dict[str, Any], words: str
) -> None:
    done = estimate(model, parallelism, **training)

    assert done.returncode == 4
    assert done.stdout == ""
    assert words in done.stderr
    assert done.stderr.startswith("sizewright: workload.training.parallelism.explicit.")


@pytest.mark.parametrize(
    ("device", "training", "words"),
    [
        ("V100-16GB", {"precision": "fp8"}, "V100-16GB has no native fp8"),
        ("H100-SXM", {"precision": "nvfp4"}, "H100-SXM has no native nvfp4"),
        ("A100-80GB-SXM", {"attention": "flash-attention-3"}, "no native flash-attention-3"),
    ],
)
def test_a_device_that_cannot_run_it_is_refused(
    device: str, training: dict[str, Any], words: str
) -> None:
    done = estimate(LLAMA, {"dp": 1}, "--device", device, **training)

    assert done.returncode == 4
    assert words in done.stderr


def test_a_setting_that_changes_nothing_is_pointed_out() -> None:
    done = estimate(LLAMA, {"dp": 8, "zero": 3, "gradient_as_bucket_view": True})

    assert done.returncode == 0
    assert "gradient_as_bucket_view changes no figure: it is of ddp's buckets" in done.stdout
