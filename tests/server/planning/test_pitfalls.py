"""A pitfall is named when it is true of the plan, and only then."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sizewright_catalog.devices import devices
from sizewright_catalog.values import InstanceType
from sizewright_server.engines import bundled_sizing
from sizewright_server.estimation.memory import ByteRange
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.workload import (
    HostConditions,
    Layout,
    ModelSource,
    Optimizer,
    Training,
    Workload,
)
from sizewright_server.planning.pitfalls import Situation, pitfalls
from sizewright_server.planning.plan import PoolFit

GPT2 = "openai-community/gpt2"
GIB = 2**30


def machine(device: str) -> InstanceType:
    """A machine of the catalog with eight of a device."""
    catalog = bundled_sizing().catalog
    offers = (catalog.offer(i) for i in range(catalog.offer_count))
    return next(
        offer.instance_type
        for offer in offers
        if offer.instance_type.device == devices()[device] and offer.instance_type.device_count == 8
    )


def pool(share: float) -> PoolFit:
    """A GPU of 80 GiB filled to a share by the high estimate."""
    high = int(share * 80 * GIB)
    return PoolFit("gpu", ByteRange(high // 2, high, high), 80 * GIB, "fits")


def situation(
    *, share: float = 0.8, workers: int = 0, layout: Layout | None = None, batch: int = 4
) -> Situation:
    """GPT-2 on eight linked GPUs, none of which is a pitfall."""
    run = Training(
        precision="bf16-mixed", optimizer=Optimizer("adamw"), micro_batch=batch, seq_len=1024
    )
    host = HostConditions(loader_workers=workers)
    work = Workload(ModelSource(find_preset(GPT2).config, preset=GPT2), run, host=host)
    return Situation(work, machine("H100-SXM"), layout or Layout(dp=8), 1, (pool(share),))


def codes(it: Situation) -> list[str]:
    """Of the pitfalls named."""
    return [notice.code for notice in pitfalls(it)]


def test_a_plan_without_pitfalls_is_told_none() -> None:
    assert codes(situation()) == []


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.3, ["batch-wastes-memory"]), (0.6, []), (0.94, []), (0.97, ["nearly-full"])],
)
def test_how_full_a_gpu_is_decides_whether_it_wastes_or_wants_watching(
    share: float, expected: list[str]
) -> None:
    assert codes(situation(share=share)) == expected


def test_more_loader_processes_than_anybody_means_are_counted_aloud() -> None:
    assert codes(situation(workers=2)) == []

    (notice,) = pitfalls(situation(workers=16))

    assert notice.code == "many-loader-processes"
    assert "8 ranks with 16 loader workers each are 128 processes" in notice.message


def test_tensor_parallelism_is_slow_where_no_link_joins_the_gpus() -> None:
    linked = situation(layout=Layout(dp=4, tp=2))
    over_pcie = replace(linked, target=machine("L4"))

    assert codes(linked) == []
    assert codes(over_pcie) == ["tensor-parallel-over-pcie"]


def test_tensor_parallelism_across_nodes_waits_for_the_network() -> None:
    across = replace(situation(layout=Layout(tp=16)), nodes=2)

    assert codes(across) == ["tensor-parallel-across-nodes"]


def test_what_does_not_fit_is_not_said_to() -> None:
    full = replace(pool(1.5), verdict="no")
    it = replace(situation(layout=Layout(dp=4, tp=2)), target=machine("L4"), pools=(full,))

    assert [notice.message for notice in pitfalls(it) if "fits" in notice.message] == []
    assert codes(it) == ["tensor-parallel-over-pcie"]
