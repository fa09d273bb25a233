"""Disk, network and interruptions asked for with options, over the bundled catalog."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from test_command_line import run

SFT = str(Path(__file__).parents[2] / "examples" / "llama3-8b-sft.yaml")


def recommended(*options: str) -> dict[str, Any]:
    done = run("recommend", SFT, "--no-local", "-o", "json", *options)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_options_ask_for_disk_network_and_interruptions() -> None:
    options = ("--min-disk", "4TB", "--min-network", "100", "--max-interruption", "5%")
    answer = recommended("--purchase", "spot", *options)

    offers = [plan["offer"] for plan in answer["recommendations"]]
    assert offers
    for offer in offers:
        kind = offer["instanceType"]
        assert int(kind["localDiskBytes"]) >= 4 * 10**12
        assert kind["network"]["bandwidthGbps"] >= 100
        assert offer["interruption"]["highPercent"] <= 5
    counted = {rejection["constraint"] for rejection in answer["rejections"]}
    assert {"local-disk", "local-disk-unknown", "interruption-unknown"} <= counted


def test_what_a_type_has_is_shown_with_its_source() -> None:
    shown = run("catalog", "show", "aws/p5.48xlarge").stdout
    unknown = run("catalog", "show", "gcp/n1-standard-8").stdout

    assert "local disk: 28,312 GiB" in shown
    assert "network between nodes: 3,200 Gbit/s over efa" in shown
    assert "local disk: not known" in unknown
    assert "network between nodes: not known" in unknown


def test_wrong_values_are_a_usage_error_that_names_each() -> None:
    done = run("recommend", SFT, "--min-disk", "5zb", "--min-network", "fast")

    assert done.returncode == 2
    assert "min_local_disk" in done.stderr
    assert "min_network_gbps" in done.stderr
