"""Host memory of GPU jobs: checkpoints, offloaded states, loaders, and what surrounds them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sizewright_server.estimation.estimator import PreparedWorkload, prepare
from sizewright_server.estimation.host_data import pinned_bytes
from sizewright_server.estimation.layout import Layout
from sizewright_server.estimation.memory import MemoryEstimate
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.runtime import device_overhead
from sizewright_server.estimation.workload import (
    Dataset,
    HostConditions,
    ModelSource,
    Optimizer,
    Training,
    Workload,
)
from sizewright_server.planning.conditions import NodeConditions, host_conditions

GIB = 2**30
PRESET = "meta-llama/Llama-3.2-1B"
FSDP = Layout(dp=8, zero=3, sharding="fsdp2")


def prepared(precision: Any = "bf16-mixed", **host: Any) -> PreparedWorkload:
    source = ModelSource(find_preset(PRESET).config, preset=PRESET)
    run = Training(precision, Optimizer("adamw"), 1, 512)
    return prepare(Workload(source, run, host=HostConditions(**host)))


def part(estimate: MemoryEstimate, phase: str, name: str) -> int:
    """Best bytes of a part on the node; 0 where there is none."""
    found = next(p for p in estimate.pool("host").phases if p.name == phase)
    return sum(each.size.best_bytes for each in found.parts if each.name == name)


def estimate(made: PreparedWorkload, layout: Layout, ranks: int) -> MemoryEstimate:
    return made.estimate(layout, ranks, device_overhead(None, None))


def test_rank_0_gathers_weights_and_both_moments() -> None:
    made = prepared(checkpoint_save="full")

    gathered = part(estimate(made, FSDP, 8), "save", "checkpoint-gathered")

    assert gathered == 12 * made.parameter_count


def test_weights_alone_are_a_third_of_that() -> None:
    made = prepared(checkpoint_save="full-weights")

    assert part(estimate(made, FSDP, 8), "save", "checkpoint-gathered") == 4 * made.parameter_count


def test_weights_cast_before_they_are_gathered_are_two_bytes_each() -> None:
    made = prepared(checkpoint_save="half-weights")

    assert part(estimate(made, FSDP, 8), "save", "checkpoint-gathered") == 2 * made.parameter_count


def test_sharded_training_saves_by_rank_unless_told() -> None:
    made = prepared()

    saved = estimate(made, FSDP, 8)

    assert part(saved, "save", "checkpoint-gathered") == 0
    assert 0 < part(saved, "save", "checkpoint-part") < 12 * made.parameter_count


def test_an_asynchronous_save_stages_each_ranks_part() -> None:
    made = prepared(checkpoint_save="sharded-async")

    staged = part(estimate(made, FSDP, 8), "save", "checkpoint-staged")

    assert staged == pytest.approx(12 * made.parameter_count, rel=1e-6)


def test_without_saving_there_is_no_such_phase() -> None:
    pool = estimate(prepared(checkpoint_save="none"), FSDP, 8).pool("host")

    assert [phase.name for phase in pool.phases] == ["load", "steady"]


@pytest.mark.parametrize(
    ("how", "copies"), [("torch-load", 8), ("torch-load-into", 16), ("rank-0-broadcast", 1)]
)
def test_every_rank_loads_a_copy_of_its_own_unless_one_sends_it(how: str, copies: int) -> None:
    made = prepared("bf16", checkpoint_load=how)

    loaded = part(estimate(made, FSDP, 8), "load", "checkpoint-in-memory")

    assert loaded == copies * 2 * made.parameter_count


def test_mapped_pages_may_be_taken_back() -> None:
    made = prepared("bf16", checkpoint_load="torch-load-mmap")
    load = next(p for p in estimate(made, FSDP, 8).pool("host").phases if p.name == "load")

    mapped = next(p for p in load.parts if p.name == "checkpoint-mapped")

    assert mapped.size.low_bytes == 0
    assert mapped.size.best_bytes == 8 * 2 * made.parameter_count


def test_an_offloaded_adam_keeps_16_bytes_a_parameter_on_the_host() -> None:
    """DeepSpeed's own estimate (estimate_zero2_model_states_mem_needs) counts as many."""
    made = prepared("bf16-mixed")
    layout = Layout(dp=8, zero=2, sharding="deepspeed", offload="optimizer")

    kept = part(estimate(made, layout, 8), "steady", "offloaded-states")

    assert 16 * made.parameter_count <= kept <= 1.5 * 16 * made.parameter_count


def test_pinned_requests_become_powers_of_two() -> None:
    assert pinned_bytes(int(1.1 * GIB)) == 2 * GIB
    assert pinned_bytes(2 * GIB) == 2 * GIB


def data(made: PreparedWorkload, **changed: Any) -> PreparedWorkload:
    rows = Dataset(rows=1_000_000, sample_elements=3 * 224 * 224, dtype="uint8", **changed)
    return prepare(replace(made.workload, dataset=rows))


IMAGES = 1_000_000 * 3 * 224 * 224


def test_decoded_images_in_memory_are_each_ranks_own() -> None:
    made = data(prepared(), container="in-memory")

    assert part(estimate(made, FSDP, 2), "steady", "dataset") == 2 * IMAGES


def test_spawned_workers_get_the_dataset_each() -> None:
    made = data(prepared(loader_workers=3, worker_start="spawn"), container="in-memory")

    assert part(estimate(made, FSDP, 1), "steady", "dataset") == 4 * IMAGES


def test_a_stream_holds_its_shuffle_buffer_in_every_worker() -> None:
    made = data(prepared(loader_workers=4), container="streaming", shuffle_buffer=1000)

    held = part(estimate(made, FSDP, 1), "steady", "shuffle-buffer")

    assert held == 4 * 1000 * 3 * 224 * 224


def test_batches_too_large_for_shared_memory_are_called_out() -> None:
    made = data(prepared(loader_workers=8, shared_memory_bytes=64 * 2**20), container="streaming")
    run = made.workload.run
    assert isinstance(run, Training)
    made = prepare(replace(made.workload, run=replace(run, micro_batch=64)))

    codes = [notice.code for notice in estimate(made, FSDP, 1).notices]

    assert "shared-memory-too-small" in codes


def test_neighbours_a_notebook_and_a_container_are_taken_off_the_node() -> None:
    bare = NodeConditions().left_bytes(64 * GIB, 64 * GIB)
    beside = host_conditions(HostConditions(other_processes_bytes=4 * GIB, notebook=True))
    limited = host_conditions(HostConditions(container_limit_bytes=16 * GIB))

    assert bare == 64 * GIB
    assert 59 * GIB < beside.left_bytes(64 * GIB, 64 * GIB) < 60 * GIB
    assert limited.left_bytes(64 * GIB, 64 * GIB) == 16 * GIB
    assert limited.left_bytes(8 * GIB, 8 * GIB) == 8 * GIB
    assert host_conditions(HostConditions(other_processes_bytes=GIB)).left_bytes(0, GIB) == 0
