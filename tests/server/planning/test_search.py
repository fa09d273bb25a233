"""The search over kinds of node estimates only what some kind of node can be."""

from __future__ import annotations

import numpy as np

from sizewright_catalog.devices import devices
from sizewright_server.estimation.preparation import prepare_any
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.workload import ModelSource, Optimizer, Training, Workload
from sizewright_server.planning.kinds import KindColumns, NodeKind
from sizewright_server.planning.plan import Constraints
from sizewright_server.planning.search import Search
from sizewright_server.planning.variants import Variant

SMALL = "meta-llama/Llama-3.2-1B"
GIB = 2**30


def node(per_node: int, count: int | None) -> NodeKind:
    return NodeKind(devices()["H100-SXM"], per_node, 1.0, 79 * GIB, 1000 * GIB, count=count)


def test_a_size_of_which_there_are_too_few_nodes_or_that_is_closed_is_not_estimated() -> None:
    run = Training(precision="bf16-mixed", optimizer=Optimizer("adamw"), micro_batch=1, seq_len=512)
    variant = Variant(prepare_any(Workload(ModelSource(find_preset(SMALL).config), run)))
    #: One owned node of one GPU, any number of four, any of eight that the question leaves out.
    kinds = KindColumns([node(1, 1), node(4, None), node(8, None)])
    wanted = np.array([True, True, False])
    search = Search(kinds, Constraints(max_nodes=2), wanted, None)

    needs = search.needs_of(variant, {1: wanted, 2: wanted})

    sizes = [(one.per_node, one.nodes) for one in needs.candidates]
    assert sizes == [(1, 1), (4, 1), (4, 2)]
