"""One rank's memory under FSDP1 and FSDP2, as traced with a fake process group."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sizewright_server.estimation.estimator import prepare
from sizewright_server.estimation.layout import FsdpSettings, Layout
from sizewright_server.estimation.runtime import device_overhead
from sizewright_server.estimation.techniques import Kernels
from sizewright_server.estimation.workload import ModelSource, Optimizer, Training, Workload

TRACES = Path(__file__).parents[2] / "fixtures" / "sharded_traces.jsonl"
TYPES = {
    "LlamaConfig": "llama",
    "Qwen2Config": "qwen2",
    "MambaConfig": "mamba",
    "NemotronHConfig": "nemotron_h",
}
#: The autograd engine's first gradient and the loss are a few hundred bytes that are not listed.
NEAR = 0.02


def rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in TRACES.read_text(encoding="utf-8").splitlines()]


def layout_of(dist: dict[str, Any]) -> Layout:
    return Layout(
        dp=dist["ranks"],
        zero=3,
        sharding=dist["library"],
        keep_gathered=not dist.get("reshard", True),
        shard_size=dist.get("shard", 0),
        fsdp=FsdpSettings(
            wrap=dist.get("wrap", "block"),
            forward_prefetch=dist.get("forward_prefetch", False),
            backward_prefetch=dist.get("backward_prefetch", True),
        ),
    )


def phases_of(row: dict[str, Any]) -> dict[str, int]:
    """What the estimate says of a traced row: allocated bytes by phase, of tensors alone."""
    work = row["workload"]
    dist, config = work["dist"], dict(work["model_config"])
    config["model_type"] = TYPES[config.pop("class")]
    layout = layout_of(dist)
    run = Training(
        precision="bf16-mixed" if dist.get("param_dtype") else "fp32",
        optimizer=Optimizer("adamw", "fused"),
        micro_batch=work["batch"],
        seq_len=work["seq"],
        gradient_accumulation_steps=work.get("grad_accum") or 1,
        checkpointing="full" if work.get("grad_ckpt") else "none",
        attention=work["attn"],
        traced=True,
        kernels=Kernels(recurrence=work.get("recurrence")),
        gradient_reduce_dtype=dist.get("reduce_dtype"),
        layout=layout,
    )
    prepared = prepare(Workload(ModelSource(config), run))
    pool = prepared.estimate(layout, 8, device_overhead(None, None)).pool("gpu")
    assert pool.gpu is not None
    found = {phase.name: _tensors(phase) for phase in pool.phases}
    return found | {"peak": pool.gpu.allocated.best_bytes}


def _tensors(phase: Any) -> int:
    outside = ("allocator-slack", "device-context", "library-workspaces", "collective-buffers")
    return sum(part.size.best_bytes for part in phase.parts if part.name not in outside)


@pytest.mark.parametrize("row", rows(), ids=lambda row: str(row["id"]))
def test_the_peak_of_a_rank_is_that_of_the_trace(row: dict[str, Any]) -> None:
    assert phases_of(row)["peak"] == pytest.approx(max(row["phase_peaks"].values()), rel=NEAR)


def test_most_traces_are_met_to_the_kilobyte() -> None:
    errors = sorted(
        abs(phases_of(row)["peak"] / max(row["phase_peaks"].values()) - 1) for row in rows()
    )

    assert errors[len(errors) // 2] < 1e-4


def test_the_step_holds_a_rank_its_shards_of_weights_gradients_and_states() -> None:
    for row in rows():
        step = phases_of(row)["optimizer-step"]
        assert step == pytest.approx(row["phase_peaks"]["opt"], rel=1e-3)


def test_fetching_ahead_holds_one_more_unit_where_blocks_are_run_again() -> None:
    rank = next(row for row in rows() if row["workload"]["dist"].get("forward_prefetch"))
    without = json.loads(json.dumps(rank))
    without["workload"]["dist"]["forward_prefetch"] = False

    # 22 blocks of 44 million parameters each, two bytes a parameter.
    unit = 2 * (2048 * (2048 * 2 + 256 * 2) + 3 * 2048 * 5632 + 2 * 2048)
    assert phases_of(rank)["backward"] - phases_of(without)["backward"] == pytest.approx(unit)
