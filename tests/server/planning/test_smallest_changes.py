"""The smallest change that makes a workload fit, held against trying every set of techniques."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise, product
from math import prod

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sizewright_catalog.values import InstanceType
from sizewright_server.engines import bundled_sizing
from sizewright_server.estimation.classical.job import FitJob, Table, TableFile
from sizewright_server.estimation.classical.prepared import FitWorkload
from sizewright_server.estimation.preparation import AnyWorkload, prepare_any
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.problems import UnsupportedWorkload
from sizewright_server.estimation.workload import (
    HostConditions,
    Layout,
    ModelSource,
    Optimizer,
    Training,
    Workload,
)
from sizewright_server.planning.machines import check_nodes
from sizewright_server.planning.plan import Constraints, worst
from sizewright_server.planning.smallest_changes import changes_that_fit, rank
from sizewright_server.planning.techniques import Applied, figures, forms
from sizewright_server.planning.variants import combine


def instance(name: str) -> InstanceType:
    """A machine of the catalog."""
    catalog = bundled_sizing().catalog
    offers = (catalog.offer(i) for i in range(catalog.offer_count))
    return next(offer.instance_type for offer in offers if offer.instance_type.type == name)


def fits(workload: AnyWorkload, target: InstanceType, headroom: float) -> bool:
    """Whether a workload fits a machine."""
    try:
        prepared = prepare_any(workload)
    except UnsupportedWorkload:
        return False
    choice = check_nodes(prepared, target, [1], Constraints(headroom=headroom)).choice
    return choice is not None and worst(tuple(p.verdict for p in choice.pools)) == "fits"


def every_set(
    workload: AnyWorkload, target: InstanceType, headroom: float, most: int
) -> list[tuple[Applied, ...]]:
    """The smallest sets of techniques that fit, of each set of names its mildest forms."""
    for count in range(1, most + 1):
        found: dict[tuple[str, ...], tuple[Applied, ...]] = {}
        names = [name for name in figures() if name != "cpu-only" and forms(name, workload)]
        for chosen in combinations(names, count):
            for numbers in product(*(range(1, len(forms(n, workload)) + 1) for n in chosen)):
                made, steps = combine(workload, list(zip(chosen, numbers, strict=True)))
                if len(steps) == count and chosen not in found and fits(made, target, headroom):
                    found[chosen] = steps
        if found:
            return sorted(found.values(), key=rank)
    return []


def answered(
    workload: AnyWorkload, target: InstanceType, headroom: float
) -> list[tuple[Applied, ...]]:
    """What the planner says."""
    asked = Constraints(headroom=headroom)
    made = changes_that_fit(prepare_any(workload), prepare_any, target, 1, asked, Layout())
    return [advice.steps for advice in made]


fits_of_tables = st.builds(
    lambda estimator, rows, columns, container, csv, share, frees: FitWorkload(
        FitJob(
            estimator[0],
            estimator[1],
            Table(rows, columns, "float64", container),
            {"n_estimators": 200},
            file=TableFile("csv") if csv else None,
            test_share=share,
            frees_table=frees,
        )
    ),
    st.sampled_from(
        [
            ("xgboost", "XGBClassifier"),
            ("lightgbm", "LGBMRegressor"),
            ("scikit-learn", "RandomForestClassifier"),
        ]
    ),
    st.integers(10**6, 10**8),
    st.integers(10, 200),
    st.sampled_from(["numpy", "pandas"]),
    st.booleans(),
    st.sampled_from([0.0, 0.2]),
    st.booleans(),
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(fits_of_tables, st.floats(0.0, 0.9))
def test_no_smaller_and_no_milder_change_of_a_fit_was_missed(
    workload: FitWorkload, headroom: float
) -> None:
    target = instance("r6a.4xlarge")
    if fits(workload, target, headroom):
        return

    assert answered(workload, target, headroom) == every_set(workload, target, headroom, 3)[:8]


@pytest.mark.parametrize(
    ("preset", "batch", "machine", "headroom"),
    [
        ("openai-community/gpt2", 64, "g5.xlarge", 0.1),
        ("openai-community/gpt2", 16, "g4dn.xlarge", 0.0),
        ("meta-llama/Llama-3.2-1B", 2, "g5.2xlarge", 0.2),
        ("meta-llama/Llama-3.2-3B", 4, "g5.2xlarge", 0.0),
    ],
)
def test_no_smaller_and_no_milder_change_of_a_training_was_missed(
    preset: str, batch: int, machine: str, headroom: float
) -> None:
    run = Training(precision="fp32", optimizer=Optimizer("adamw"), micro_batch=batch, seq_len=1024)
    work = Workload(ModelSource(find_preset(preset).config, preset=preset), run)
    target = instance(machine)
    assert not fits(work, target, headroom)

    found = answered(work, target, headroom)

    assert found
    assert found == every_set(work, target, headroom, len(found[0]))[:8]


def test_what_leaves_results_alone_comes_before_what_is_faster_and_does_not() -> None:
    run = Training(precision="fp32", optimizer=Optimizer("adamw"), micro_batch=4, seq_len=1024)
    preset = "meta-llama/Llama-3.2-3B"
    work = Workload(ModelSource(find_preset(preset).config, preset=preset), run)

    found = answered(work, instance("g5.2xlarge"), 0.0)

    lossy = [sum(step.figures.changes_results for step in steps) for steps in found]
    assert lossy == sorted(lossy)
    for milder, other in pairwise(found):
        same = [step.figures.changes_results for step in (*milder, *other)]
        if len(set(same)) == 1:
            times = [prod(step.figures.time[1] for step in steps) for steps in (milder, other)]
            assert times == sorted(times)


def test_a_machine_too_small_for_any_three_changes_is_told_none() -> None:
    run = Training(
        precision="bf16-mixed",
        optimizer=Optimizer("adamw"),
        micro_batch=1,
        seq_len=256,
        checkpointing="full",
    )
    preset = "meta-llama/Meta-Llama-3-70B"
    work = Workload(ModelSource(find_preset(preset).config, preset=preset), run)

    assert answered(replace(work, host=HostConditions()), instance("g4dn.xlarge"), 0.0) == []
