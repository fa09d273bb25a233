"""The largest value that fits fits, and the next one does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sizewright_catalog.values import InstanceType
from sizewright_server.engines import bundled_sizing
from sizewright_server.estimation.preparation import prepare_any
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.workload import ModelSource, Optimizer, Training, Workload
from sizewright_server.planning.limits import FINENESS, limits
from sizewright_server.planning.machines import check_nodes, replayed
from sizewright_server.planning.plan import Constraints, worst

LLAMA = "meta-llama/Llama-3.2-1B"
RUN = Training(precision="bf16-mixed", optimizer=Optimizer("adamw"), micro_batch=4, seq_len=1024)


def machine(name: str) -> InstanceType:
    """A machine of the catalog."""
    catalog = bundled_sizing().catalog
    offers = (catalog.offer(i) for i in range(catalog.offer_count))
    return next(o.instance_type for o in offers if o.instance_type.type == name)


def work(run: Training) -> Workload:
    """A full fine-tune of 1 B parameters."""
    return Workload(ModelSource(find_preset(LLAMA).config, preset=LLAMA), run)


def fits(run: Training, target: InstanceType) -> bool:
    """Whether it fits for certain, as `check` says."""
    choice = check_nodes(prepare_any(work(run)), target, [1], Constraints()).choice
    choice = choice and replayed(choice, target, 0.0)
    return choice is not None and worst(tuple(p.verdict for p in choice.pools)) == "fits"


@pytest.mark.parametrize("name", ["p4d.24xlarge", "g6e.xlarge"])
def test_a_sixty_fourth_more_than_the_largest_does_not_fit(name: str) -> None:
    target = machine(name)

    for limit in limits(work(RUN), prepare_any, target, 1, Constraints()):
        field = limit.field.rsplit(".", 1)[-1]
        assert limit.largest >= 1
        assert fits(replace(RUN, **{field: limit.largest}), target)  # type: ignore[arg-type]
        more = limit.largest + limit.largest // FINENESS + 1
        assert not fits(replace(RUN, **{field: more}), target)  # type: ignore[arg-type]


def test_no_limit_is_below_what_a_replay_has_shown_to_fit() -> None:
    found = limits(
        work(RUN), prepare_any, machine("g4dn.xlarge"), 1, Constraints(), fits_as_stated=True
    )

    assert [limit.largest for limit in found] == [RUN.micro_batch, RUN.seq_len]


def test_where_nothing_fits_the_largest_is_none() -> None:
    found = limits(work(RUN), prepare_any, machine("g4dn.xlarge"), 1, Constraints())

    assert [(limit.largest, limit.at_least) for limit in found] == [(0, False), (0, False)]
