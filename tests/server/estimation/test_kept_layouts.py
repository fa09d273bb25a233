"""What is estimated of a layout is kept, whatever it was asked for together with."""

from __future__ import annotations

from dataclasses import fields

import pytest

from sizewright_server.estimation.columns import LayoutColumns
from sizewright_server.estimation.estimator import PreparedWorkload, prepare
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.workload import (
    Layout,
    ModelSource,
    Optimizer,
    Training,
    Workload,
)

LLAMA = "meta-llama/Meta-Llama-3-8B"
TRAINING = Training(
    precision="bf16-mixed", optimizer=Optimizer("adamw"), micro_batch=1, seq_len=4096
)


def prepared() -> PreparedWorkload:
    return prepare(Workload(ModelSource(find_preset(LLAMA).config, preset=LLAMA), TRAINING))


def rows(columns: LayoutColumns) -> list[tuple[int, ...]]:
    return list(zip(*(getattr(columns, f.name).tolist() for f in fields(columns)), strict=True))


def every_layout(model: PreparedWorkload) -> list[Layout]:
    found = [model.layouts_for(nodes * 8, 8) for nodes in (1, 2, 4)]
    # Pipelines share a walk with layouts that are none.
    stages = [
        Layout(dp=8 // (pp * tp), tp=tp, pp=pp, sharding="megatron", zero=1)
        for pp, tp in ((1, 1), (2, 1), (4, 1), (2, 2), (8, 1))
    ]
    return [*dict.fromkeys(layout for layouts in found for layout in layouts), *stages]


def test_a_layout_needs_the_same_alone_and_beside_others() -> None:
    together = prepared()
    layouts = every_layout(together)
    assert len({layout.sharding for layout in layouts}) > 2

    beside = rows(together.columns(layouts))

    assert [rows(prepared().columns([layout]))[0] for layout in layouts] == beside


def test_layouts_asked_for_again_in_another_order_have_the_rows_they_had() -> None:
    model = prepared()
    layouts = every_layout(model)
    first = rows(model.columns(layouts[::2]))

    mixed = rows(model.columns([*layouts[::-1], layouts[0]]))

    assert mixed[::-1][1:][::2] == first
    assert mixed[-1] == mixed[-2]


def test_a_layout_is_walked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = prepared()
    layouts = every_layout(model)
    model.columns(layouts)

    def walked(_: object) -> None:
        raise AssertionError("a layout that is known was walked again")

    monkeypatch.setattr(model, "_make_columns", walked)

    assert len(rows(model.columns(layouts[3:7]))) == 4
