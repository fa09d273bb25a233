"""Host memory of serving against processes that were measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.runtime import device_overhead
from sizewright_server.estimation.serving.prepared import PreparedServing
from sizewright_server.estimation.serving.run import ServingRun, ServingWorkload
from sizewright_server.estimation.workload import HostConditions, Layout, ModelSource

MIB = 2**20
MEASURED: dict[str, Any] = json.loads(
    (Path(__file__).parents[4] / "tests/fixtures/serving/host_processes.json").read_text("utf-8")
)


def host(
    phase: str, layout: Layout, conditions: HostConditions | None = None, **run: Any
) -> dict[str, tuple[int, int, int]]:
    """Low, best and high MiB of a node's host parts."""
    usual = ServingRun("vllm", "bf16", "bf16", "bf16", batch=4, input_tokens=512)
    workload = ServingWorkload(
        ModelSource(find_preset("meta-llama/Llama-3.2-1B").config),
        replace(usual, **run),
        host=conditions or HostConditions(),
    )
    estimate = PreparedServing(workload).estimate(
        layout, layout.gpus, device_overhead("nvidia", "9.0")
    )
    found = next(p for p in estimate.pool("host").phases if p.name == phase)
    return {
        part.name: (
            part.size.low_bytes // MIB,
            part.size.best_bytes // MIB,
            part.size.high_bytes // MIB,
        )
        for part in found.parts
    }


@pytest.mark.parametrize("measured", MEASURED["vllm"], ids=["small", "large"])
def test_the_processes_of_vllm_lie_in_their_bounds(measured: dict[str, int]) -> None:
    held = host("serving", Layout(tp=2))

    low, best, high = held["api-server"]
    assert low <= measured["api-server"] <= best <= high
    low, best, high = held["engine-core"]
    assert low <= measured["engine-core"] <= best <= high
    # A rank without a GPU is the least a rank with one holds.
    own = measured["worker"] - measured["cache"] - measured["weights"]
    low, _, high = held["worker-process"]
    assert low <= 2 * own <= high


def test_over_one_rank_the_scheduler_is_the_rank() -> None:
    assert "engine-core" not in host("serving", Layout())
    assert host("serving", Layout(dp=2, tp=2))["engine-core"] == tuple(
        2 * n for n in host("serving", Layout(tp=2))["engine-core"]
    )


def test_a_module_process_holds_no_less_than_its_imports() -> None:
    low, _, _ = host("serving", Layout(), engine="transformers")["module-process"]

    assert low <= MEASURED["transformers"]["imported"]


def test_mapped_files_are_pages_and_a_state_dict_is_the_process_own() -> None:
    loads = MEASURED["loads"]
    share = (loads["torch-load"]["own"] - loads["torch-load-mapped"]["own"]) / loads["weights"]

    mapped = host("load", Layout(), HostConditions(checkpoint_load="safetensors"))
    whole = host("load", Layout(), HostConditions(checkpoint_load="torch-load"))
    weights = whole["checkpoint-shard"][0]

    assert share == pytest.approx(1, abs=0.01)
    assert weights == pytest.approx(
        find_preset("meta-llama/Llama-3.2-1B").parameters * 2 / MIB, rel=0.01
    )
    assert mapped["checkpoint-shard"][0] == 0
    assert mapped["checkpoint-shard"][1] < 0.2 * weights
