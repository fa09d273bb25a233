"""Packed base weights are sharded by FSDP, never split over tensor-parallel ranks."""

from __future__ import annotations

import pytest

from sizewright_server.estimation.estimator import PreparedWorkload
from sizewright_server.estimation.preparation import prepare_any
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.problems import UnsupportedWorkload
from sizewright_server.estimation.techniques import Adapter, BaseWeights
from sizewright_server.estimation.workload import (
    Layout,
    ModelSource,
    Optimizer,
    Training,
    Workload,
)

QWEN = "Qwen/Qwen2.5-7B"


def prepared(base: str, layout: Layout | None = None) -> PreparedWorkload:
    run = Training(
        precision="bf16",
        optimizer=Optimizer("adamw"),
        micro_batch=1,
        seq_len=512,
        adapter=Adapter("lora", rank=16, targets=frozenset({"q"})),
        base_weights=BaseWeights(base),
        layout=layout,
    )
    made = prepare_any(Workload(ModelSource(find_preset(QWEN).config, preset=QWEN), run))
    assert isinstance(made, PreparedWorkload)
    return made


@pytest.mark.parametrize("base", ["nf4", "int8", "gptq-int4", "awq-int4"])
def test_no_layout_that_is_tried_splits_packed_weights_over_ranks(base: str) -> None:
    tried = prepared(base).layouts_for(4, 4)

    assert {layout.tp for layout in tried} == {1}
    assert any(layout.zero == 3 for layout in tried)


@pytest.mark.parametrize("base", ["bf16", "fp8"])
def test_weights_that_are_not_packed_are_split(base: str) -> None:
    assert {layout.tp for layout in prepared(base).layouts_for(4, 4)} == {1, 2, 4}


def test_a_stated_split_of_packed_weights_is_refused_with_what_shards_them() -> None:
    with pytest.raises(UnsupportedWorkload, match=r"splits no layer of nf4 weights.*fsdp2"):
        prepared("nf4", Layout(tp=2))
